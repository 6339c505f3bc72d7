//! Pages, downloads and uploads in the clear, head by head as hyper writes them.

use hyper::{Method, Request};
use rand::rngs::StdRng;

use super::Turn;
use crate::web::http::{
    self, ABOUT_KAZAA_PATH, DOWNLOAD_SIZES, KEEP_ALIVE_PAGES, Payload, UPLOAD_SIZES, bytes_target,
    content_of, digits_target, page_target, receipt, well_known_target,
};
use crate::web::{raw_http, socks};

/// The seed of the server's own draws, how answers are cut, as it is by default.
const SERVER_SEED: u64 = 1;

/// The example of RFC 9110 section 5.6.7: a script has no clock.
const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// One page of some kilobytes.
pub(super) fn page(draws: &mut StdRng) -> Vec<Turn> {
    get(&page_target(draws))
}

/// Four pages, one after the other, over one connection.
pub(super) fn keep_alive(draws: &mut StdRng) -> Vec<Turn> {
    (0..KEEP_ALIVE_PAGES).flat_map(|_| page(draws)).collect()
}

/// A download.
pub(super) fn download(draws: &mut StdRng) -> Vec<Turn> {
    get(&bytes_target(draws, DOWNLOAD_SIZES))
}

/// A path of digits and a file name.
pub(super) fn digits(draws: &mut StdRng) -> Vec<Turn> {
    get(&digits_target(draws))
}

/// A path that begins with a dot.
pub(super) fn well_known(draws: &mut StdRng) -> Vec<Turn> {
    get(&well_known_target(draws))
}

/// A page asked for with large cookies.
pub(super) fn large_head(draws: &mut StdRng) -> Vec<Turn> {
    ask(http::cookie_request(draws).expect("hexadecimal digits make a header value"))
}

/// An upload.
pub(super) fn upload(draws: &mut StdRng) -> Vec<Turn> {
    post(&bytes_target(draws, UPLOAD_SIZES))
}

/// The page that describes FastTrack.
pub(super) fn page_about_kazaa() -> Vec<Turn> {
    get(ABOUT_KAZAA_PATH)
}

/// The same page on its way to a server.
pub(super) fn upload_about_kazaa() -> Vec<Turn> {
    post(ABOUT_KAZAA_PATH)
}

/// A page over HTTP/1.0. The server closes after it, as it does after a head in two parts.
pub(super) fn http10(draws: &mut StdRng) -> Vec<Turn> {
    let target = page_target(draws);
    let head = raw_http::http10_head(&target);
    let response = response("HTTP/1.0 200 OK", "", page_at(&target));
    [vec![Turn::client(head)], response].concat()
}

/// A page asked for by a head in two parts.
pub(super) fn split_head(draws: &mut StdRng) -> Vec<Turn> {
    let target = page_target(draws);
    let parts = raw_http::split_head_parts(&target, draws).map(Turn::client);
    let response = response("HTTP/1.1 200 OK", "connection: close\r\n", page_at(&target));
    [parts.to_vec(), response].concat()
}

/// A page through a proxy.
pub(super) fn socks(draws: &mut StdRng) -> Vec<Turn> {
    let page = page(draws);
    let granted = [Turn::client(socks::request()), Turn::server(socks::GRANTED)];
    granted.into_iter().chain(page).collect()
}

/// A browser's request for `target`, and the answer.
pub(super) fn get(target: &str) -> Vec<Turn> {
    ask(http::get_request(target).expect("targets are well formed"))
}

fn post(target: &str) -> Vec<Turn> {
    ask(http::post_request(target).expect("targets are well formed"))
}

fn ask(request: Request<Payload>) -> Vec<Turn> {
    let target = request.uri().to_string();
    let answer = if request.method() == Method::POST {
        let receipt = Payload::answer(&target, receipt(&target), SERVER_SEED);
        response("HTTP/1.1 201 Created", "", receipt)
    } else {
        response("HTTP/1.1 200 OK", "", page_at(&target))
    };
    let request = writes(&request_head(&request), request.into_body());
    request.map(Turn::client).chain(answer).collect()
}

fn page_at(target: &str) -> Payload {
    Payload::answer(target, content_of(target), SERVER_SEED)
}

fn response(status_line: &str, fields: &str, body: Payload) -> Vec<Turn> {
    let length = body.remaining();
    let head = format!("{status_line}\r\n{fields}content-length: {length}\r\ndate: {DATE}\r\n\r\n");
    writes(head.as_bytes(), body).map(Turn::server).collect()
}

/// The request line and every field in its order, names in lower case, and the body's length.
fn request_head(request: &Request<Payload>) -> Vec<u8> {
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method(), request.uri()).into_bytes();
    for (name, value) in request.headers() {
        head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    let length = request.body().remaining();
    if length > 0 {
        head.extend(format!("content-length: {length}\r\n").into_bytes());
    }
    head.extend(b"\r\n");
    head
}

/// A head and the first piece of its body in one write, then every other piece in its own.
fn writes(head: &[u8], mut body: Payload) -> impl Iterator<Item = Vec<u8>> + use<> {
    let first = body.next_piece().unwrap_or_default();
    let first = [head, &first].concat();
    std::iter::once(first).chain(std::iter::from_fn(move || {
        body.next_piece().map(|piece| piece.to_vec())
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rand::SeedableRng;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::super::Side;
    use super::*;
    use crate::web::server::Shared;
    use crate::web::tls;

    /// More than any message here.
    const ROOM: usize = 1 << 20;

    fn said(turns: &[Turn], side: Side) -> Vec<u8> {
        let turns = turns.iter().filter(|turn| turn.from == side);
        turns.flat_map(|turn| turn.bytes.clone()).collect()
    }

    /// What hyper's client writes for a request.
    async fn hyper_writes(request: Request<Payload>, octets: usize) -> Vec<u8> {
        let (near, mut far) = duplex(ROOM);
        let io = hyper_util::rt::TokioIo::new(near);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        let _driver = http::drive(connection);
        let _response = sender.send_request(request);
        let mut written = vec![0; octets];
        far.read_exact(&mut written).await.unwrap();
        written
    }

    /// The first octets that hyper's server answers to what the client of `turns` says.
    async fn hyper_answers(turns: &[Turn], octets: usize) -> Vec<u8> {
        let identity = tls::Identity::generate().unwrap();
        let shared = Shared {
            seed: SERVER_SEED,
            tls: tls::server_config(&identity).unwrap(),
        };
        let (near, mut far) = duplex(ROOM);
        let _served = tokio::spawn(http::serve_http1(near, Arc::new(shared)));
        far.write_all(&said(turns, Side::Client)).await.unwrap();
        let mut answered = vec![0; octets];
        far.read_exact(&mut answered).await.unwrap();
        answered
    }

    /// Puts the script's date in the place of the server's.
    fn dated_alike(answer: &[u8]) -> Vec<u8> {
        let at = answer
            .windows(6)
            .position(|octets| octets == b"date: ")
            .expect("hyper dates its answers");
        let mut answer = answer.to_vec();
        answer[at + 6..at + 6 + DATE.len()].copy_from_slice(DATE.as_bytes());
        answer
    }

    #[tokio::test]
    async fn requests_are_octet_for_octet_those_of_hyper() {
        let mut draws = StdRng::seed_from_u64(1);
        let requests = [
            http::get_request("/news/1.html").unwrap(),
            http::cookie_request(&mut draws).unwrap(),
            http::post_request("/bytes/40000?name=1").unwrap(),
        ];
        let mut draws = StdRng::seed_from_u64(1);
        let again = [
            http::get_request("/news/1.html").unwrap(),
            http::cookie_request(&mut draws).unwrap(),
            http::post_request("/bytes/40000?name=1").unwrap(),
        ];
        for (request, again) in requests.into_iter().zip(again) {
            let scripted = said(&ask(request), Side::Client);
            let written = hyper_writes(again, scripted.len()).await;
            assert_eq!(
                String::from_utf8_lossy(&written),
                String::from_utf8_lossy(&scripted)
            );
        }
    }

    #[tokio::test]
    async fn answers_are_octet_for_octet_those_of_hyper_save_for_the_date() {
        let mut draws = StdRng::seed_from_u64(2);
        for turns in [
            page(&mut draws),
            download(&mut draws),
            upload(&mut draws),
            http10(&mut draws),
            split_head(&mut draws),
            upload_about_kazaa(),
        ] {
            let scripted = said(&turns, Side::Server);
            let answered = dated_alike(&hyper_answers(&turns, scripted.len()).await);
            let head = |octets: &[u8]| {
                String::from_utf8_lossy(&octets[..octets.len().min(200)]).into_owned()
            };
            assert_eq!(head(&answered), head(&scripted));
            assert!(answered == scripted, "bodies differ");
        }
    }

    #[test]
    fn a_proxy_grants_before_the_page_is_asked_for() {
        let turns = socks(&mut StdRng::seed_from_u64(3));
        let lengths: Vec<_> = turns[..2].iter().map(|turn| turn.bytes.len()).collect();
        assert_eq!(lengths, [12, 8]);
        assert!(turns[2].bytes.starts_with(b"GET /news/"));
    }
}
