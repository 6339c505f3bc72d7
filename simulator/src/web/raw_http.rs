//! Request heads that hyper would not write, written by hand; hyper answers them all the same.

use anyhow::{Context, anyhow, ensure};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::Visit;
use super::content::Expected;
use super::http::{USER_AGENT, content_of, page_target};
use super::kind::Service;

/// The end of a message head.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// A page over HTTP/1.0, where `User-Agent` is spelt as it should be.
pub(super) async fn http10(visit: &mut Visit) -> anyhow::Result<()> {
    let target = page_target(&mut visit.rng);
    exchange(visit, &target, &[http10_head(&target)]).await
}

/// A page asked for by a head in two segments, cut at any place.
pub(super) async fn split_head(visit: &mut Visit) -> anyhow::Result<()> {
    let target = page_target(&mut visit.rng);
    let parts = split_head_parts(&target, &mut visit.rng);
    exchange(visit, &target, &parts).await
}

/// The head of a request of HTTP/1.0.
pub(super) fn http10_head(target: &str) -> String {
    format!("GET {target} HTTP/1.0\r\nUser-Agent: Wget/1.21.3\r\nAccept: */*\r\n\r\n")
}

/// The two parts of a head, cut at any place.
pub(super) fn split_head_parts(target: &str, draws: &mut StdRng) -> [String; 2] {
    let mut head = format!(
        "GET {target} HTTP/1.1\r\nHost: www.example.test\r\nUser-Agent: {USER_AGENT}\r\n\
         Connection: close\r\n\r\n"
    );
    let rest = head.split_off(draws.random_range(1..head.len()));
    [head, rest]
}

/// Writes the parts of a head, each on its own, and compares what comes until the server closes.
async fn exchange(visit: &Visit, target: &str, parts: &[String]) -> anyhow::Result<()> {
    let mut stream = visit.tcp(Service::Http).await?;
    for part in parts {
        // Without Nagle's delay each write is a segment of its own.
        stream
            .write_all(part.as_bytes())
            .await
            .context("cannot send the request")?;
    }
    let mut response = Vec::new();
    stream
        .read_to_end(&mut response)
        .await
        .context("the response ended early")?;
    let mut expected = Expected::new(content_of(target));
    expected.check(body_of(&response)?)?;
    Ok(expected.finish()?)
}

/// The body of a response of status 200.
fn body_of(response: &[u8]) -> anyhow::Result<&[u8]> {
    let end = response
        .windows(HEAD_END.len())
        .position(|octets| octets == HEAD_END);
    let end = end.ok_or_else(|| anyhow!("no whole response head in {} octets", response.len()))?;
    let head = String::from_utf8_lossy(&response[..end]);
    let status = head.lines().next().and_then(|line| line.split(' ').nth(1));
    ensure!(
        status == Some("200"),
        "status {}",
        status.unwrap_or("missing")
    );
    Ok(&response[end + HEAD_END.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_begins_after_the_first_empty_line() {
        let body = body_of(b"HTTP/1.0 200 OK\r\nX: y\r\n\r\nab\r\n\r\ncd").unwrap();
        assert_eq!(body, b"ab\r\n\r\ncd");
    }

    #[test]
    fn a_refusal_and_half_a_head_are_errors() {
        assert!(
            body_of(b"HTTP/1.1 503 Busy\r\n\r\n")
                .unwrap_err()
                .to_string()
                .contains("503")
        );
        assert!(body_of(b"HTTP/1.1 200 OK\r\nX: ").is_err());
    }
}
