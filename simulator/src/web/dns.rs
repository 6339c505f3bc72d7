//! DNS by hickory's messages, over datagrams and over a stream with two octets of length.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context, ensure};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::Visit;
use super::content::digest;
use super::datagram::{Addresses, Conversation};
use super::exchange::Turn;
use super::kind::Service;
use super::server::Shared;

/// Seconds an answer may be kept.
const TIME_TO_LIVE: u32 = 60;

/// First octets of message ids: those of FastTrack's datagrams, and one that is not.
const ID_LEADS: [u8; 6] = [0x27, 0x28, 0x29, 0x2a, 0xc0, 0x5e];

/// Strings in a text record; together too long for a datagram of 512 octets.
const TEXT_STRINGS: usize = 12;

// --- server ---

/// Answers one message.
pub(super) fn answer(question: &[u8], _: Addresses) -> Option<Vec<u8>> {
    respond(question).ok()
}

/// Answers the messages of one TCP connection (RFC 7766: length first).
pub(super) async fn answer_stream(mut stream: TcpStream, _: Arc<Shared>) -> anyhow::Result<()> {
    loop {
        let question = read_message(&mut stream).await?;
        write_message(&mut stream, &respond(&question)?).await?;
    }
}

fn respond(question: &[u8]) -> anyhow::Result<Vec<u8>> {
    let question = Message::from_vec(question)?;
    ensure!(
        question.metadata.message_type == MessageType::Query,
        "not a question"
    );
    let mut reply = Message::response(question.metadata.id, question.metadata.op_code);
    reply.metadata.recursion_desired = question.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    for query in question.queries {
        if let Some(data) = data_of(query.name(), query.query_type()) {
            reply.add_answer(Record::from_rdata(query.name().clone(), TIME_TO_LIVE, data));
        }
        reply.add_query(query);
    }
    Ok(reply.to_vec()?)
}

/// What stands behind a name: an address of the documentation range 198.51.100.0/24 or a long text.
fn data_of(name: &Name, kind: RecordType) -> Option<RData> {
    let number = digest(name.to_ascii().to_ascii_lowercase().as_bytes());
    match kind {
        RecordType::A => Some(RData::A(A(Ipv4Addr::new(198, 51, 100, number as u8)))),
        RecordType::TXT => Some(RData::TXT(TXT::new(text_of(number)))),
        _ => None,
    }
}

fn text_of(number: u64) -> Vec<String> {
    let string = |index| format!("{:016x}", number.wrapping_add(index)).repeat(12);
    (0..TEXT_STRINGS as u64).map(string).collect()
}

// --- without sockets ---

/// A question for an address, and its answer.
pub(super) fn script_of_datagrams(draws: &mut StdRng) -> Vec<Turn> {
    let (question, answer) = question_and_answer(draws, RecordType::A);
    vec![Turn::client(question), Turn::server(answer)]
}

/// A question for a long text, and its answer, each behind its length.
pub(super) fn script_of_stream(draws: &mut StdRng) -> Vec<Turn> {
    let (question, answer) = question_and_answer(draws, RecordType::TXT);
    let [question, answer] =
        [question, answer].map(|message| framed(&message).expect("both are of a few kilobytes"));
    vec![Turn::client(question), Turn::server(answer)]
}

fn question_and_answer(draws: &mut StdRng, kind: RecordType) -> (Vec<u8>, Vec<u8>) {
    let question = question(draws, kind)
        .and_then(|message| Ok(message.to_vec()?))
        .expect("the name is well formed");
    let answer = respond(&question).expect("the question is well formed");
    (question, answer)
}

// --- client ---

/// Asks for an address by UDP.
pub(super) async fn ask_udp(visit: &mut Visit) -> anyhow::Result<()> {
    let question = question(&mut visit.rng, RecordType::A)?;
    let conversation = Conversation::open(visit, Service::DnsUdp).await?;
    let reply = conversation.ask(&question.to_vec()?).await?;
    check(&question, &reply)
}

/// Asks for a long text by TCP.
pub(super) async fn ask_tcp(visit: &mut Visit) -> anyhow::Result<()> {
    let question = question(&mut visit.rng, RecordType::TXT)?;
    let mut stream = visit.tcp(Service::DnsTcp).await?;
    write_message(&mut stream, &question.to_vec()?).await?;
    let reply = read_message(&mut stream).await.context("no answer")?;
    check(&question, &reply)
}

fn question(draws: &mut StdRng, kind: RecordType) -> anyhow::Result<Message> {
    let lead = ID_LEADS[draws.random_range(0..ID_LEADS.len())];
    let id = u16::from_be_bytes([lead, draws.random()]);
    let name = Name::from_ascii(format!("host-{:08x}.example.test.", draws.random::<u32>()))?;
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, kind));
    Ok(message)
}

/// Compares an answer with the only right one.
fn check(question: &Message, reply: &[u8]) -> anyhow::Result<()> {
    let reply = Message::from_vec(reply).context("not a DNS message")?;
    ensure!(
        reply.metadata.id == question.metadata.id,
        "answer to another question"
    );
    ensure!(
        reply.metadata.message_type == MessageType::Response,
        "not an answer"
    );
    ensure!(
        reply.metadata.response_code == ResponseCode::NoError,
        "refused"
    );
    ensure!(reply.queries == question.queries, "answer to another name");
    let query = question.queries.first().context("a question asks")?;
    let [record] = reply.answers.as_slice() else {
        anyhow::bail!("{} records instead of one", reply.answers.len());
    };
    ensure!(
        record.name == *query.name() && record.ttl == TIME_TO_LIVE,
        "altered record"
    );
    ensure!(
        Some(&record.data) == data_of(query.name(), query.query_type()).as_ref(),
        "altered data"
    );
    Ok(())
}

async fn read_message<S: AsyncRead + Unpin>(stream: &mut S) -> anyhow::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message<S: AsyncWrite + Unpin>(
    stream: &mut S,
    message: &[u8],
) -> anyhow::Result<()> {
    Ok(stream.write_all(&framed(message)?).await?)
}

/// A message behind its length.
fn framed(message: &[u8]) -> anyhow::Result<Vec<u8>> {
    let length = u16::try_from(message.len()).context("message too long")?;
    Ok([&length.to_be_bytes(), message].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1035 section 4.1, by hand: id 0x2728, recursion desired, one question `a.test. IN A`.
    const QUESTION: &[u8] =
        b"\x27\x28\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x04test\x00\x00\x01\x00\x01";

    #[test]
    fn an_address_is_answered_in_the_layout_of_rfc_1035() {
        let reply = respond(QUESTION).unwrap();
        assert_eq!(reply[..4], [0x27, 0x28, 0x81, 0x80]);
        assert_eq!(reply[4..8], [0, 1, 0, 1]);
        let address = &reply[reply.len() - 6..];
        assert_eq!(address[..5], [0, 4, 198, 51, 100]);
    }

    #[test]
    fn an_answer_to_a_question_passes_and_every_altered_one_fails() {
        let question = Message::from_vec(QUESTION).unwrap();
        let reply = respond(QUESTION).unwrap();
        check(&question, &reply).unwrap();
        let mut altered = reply.clone();
        *altered.last_mut().unwrap() ^= 1;
        assert!(
            check(&question, &altered)
                .unwrap_err()
                .to_string()
                .contains("altered data")
        );
        assert!(check(&question, &reply[..20]).is_err());
    }

    #[test]
    fn a_text_is_too_long_for_a_datagram() {
        let text: usize = text_of(7).iter().map(String::len).sum();
        assert!(text > 512, "{text}");
    }

    #[test]
    fn noise_has_no_answer() {
        assert!(respond(b"").is_err());
        assert!(respond(&[0xff; 40]).is_err());
    }
}
