//! SMTP: one mail from greeting to goodbye (RFC 5321). The server speaks first.

use std::sync::Arc;

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::client::Visit;
use super::content::digest;
use super::exchange::Turn;
use super::kind::Service;
use super::server::Shared;
use super::stream::Lines;

const GREETING: &str = "220 mail.example.test ESMTP Postfix";
const HELLO: &str = "250-mail.example.test\r\n250-SIZE 10240000\r\n250 8BITMIME";
const OK: &str = "250 2.1.0 Ok";
const GO_AHEAD: &str = "354 End data with <CR><LF>.<CR><LF>";
const GOODBYE: &str = "221 2.0.0 Bye";
const UNKNOWN: &str = "502 5.5.2 Error: command not recognized";

/// Takes mails and keeps nothing but their digest.
pub(super) async fn answer(mut stream: TcpStream, _: Arc<Shared>) -> anyhow::Result<()> {
    stream.write_all(line(GREETING).as_bytes()).await?;
    let mut lines = Lines::new(stream);
    loop {
        let command = lines.next().await?.to_ascii_uppercase();
        let reply = match command.split([' ', ':']).next().unwrap_or_default() {
            "EHLO" => HELLO.to_owned(),
            "MAIL" | "RCPT" => OK.to_owned(),
            "DATA" => {
                lines.stream().write_all(line(GO_AHEAD).as_bytes()).await?;
                receipt(&read_mail(&mut lines).await?)
            }
            "QUIT" => return Ok(lines.stream().write_all(line(GOODBYE).as_bytes()).await?),
            _ => UNKNOWN.to_owned(),
        };
        lines.stream().write_all(line(&reply).as_bytes()).await?;
    }
}

async fn read_mail(lines: &mut Lines<TcpStream>) -> anyhow::Result<String> {
    let mut mail = String::new();
    loop {
        match lines.next().await?.as_str() {
            "." => return Ok(mail),
            text => mail.push_str(&line(text)),
        }
    }
}

/// What the server says about a mail; the queue name proves that it arrived unaltered.
fn receipt(mail: &str) -> String {
    format!("250 2.0.0 Ok: queued as {:016X}", digest(mail.as_bytes()))
}

/// Delivers one mail.
pub(super) async fn deliver(visit: &mut Visit) -> anyhow::Result<()> {
    let mail = mail(&mut visit.rng);
    let mut lines = Lines::new(visit.tcp(Service::Smtp).await?);
    lines.expect(GREETING).await?;
    for (command, reply) in dialogue(&mail) {
        lines.stream().write_all(line(&command).as_bytes()).await?;
        for wanted in reply.split("\r\n") {
            lines.expect(wanted).await?;
        }
    }
    Ok(())
}

/// The greeting, then every command with its reply.
pub(super) fn script(draws: &mut StdRng) -> Vec<Turn> {
    let greeting = [Turn::server(line(GREETING))];
    let commands = dialogue(&mail(draws));
    let rest = commands
        .iter()
        .flat_map(|(command, reply)| [Turn::client(line(command)), Turn::server(line(reply))]);
    greeting.into_iter().chain(rest).collect()
}

/// What the client says, and what it is answered.
fn dialogue(mail: &str) -> [(String, String); 6] {
    [
        ("EHLO client.example.test", HELLO),
        ("MAIL FROM:<a@example.test>", OK),
        ("RCPT TO:<b@example.test>", OK),
        ("DATA", GO_AHEAD),
        (&format!("{mail}."), &receipt(mail)),
        ("QUIT", GOODBYE),
    ]
    .map(|(command, reply)| (command.to_owned(), reply.to_owned()))
}

/// A mail with a short header and some lines that begin with no dot.
fn mail(draws: &mut StdRng) -> String {
    let mut mail = line("Subject: control group") + &line("");
    for _ in 0..draws.random_range(1..40) {
        mail.push_str(&line(&format!("{:032x}", draws.random::<u128>())));
    }
    mail
}

fn line(text: &str) -> String {
    format!("{text}\r\n")
}
