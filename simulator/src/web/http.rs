//! Pages, downloads and uploads: hyper at both ends, over any byte stream.

use std::convert::Infallible;
use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::{Context as _, ensure};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::client::Visit;
use super::content::{Altered, Content, Expected, digest};
use super::kind::Service;
use super::server::Shared;

/// A page that describes the FastTrack protocol, with every string a naive filter looks for.
const ABOUT_KAZAA: &str = include_str!("about_kazaa.html");

/// Where that page lies.
pub(super) const ABOUT_KAZAA_PATH: &str = "/about-kazaa";

/// Pages over one connection.
pub(super) const KEEP_ALIVE_PAGES: usize = 4;

/// Octets of a download.
pub(super) const DOWNLOAD_SIZES: RangeInclusive<u64> = 64 * 1024..=512 * 1024;
/// Octets of an upload.
pub(super) const UPLOAD_SIZES: RangeInclusive<u64> = 1_024..=64 * 1024;

/// What most browsers of one family say.
pub(super) const USER_AGENT: &str =
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";

/// The largest download: what a `/bytes/` path may ask for, in octets.
const LARGEST: u64 = 1 << 30;

/// The most octets that one write of a body carries.
const LARGEST_PIECE: usize = 16 * 1024;

/// The octets behind a request target: the named number for `/bytes/N`, otherwise a page of some
/// kilobytes.
pub(super) fn content_of(target: &str) -> Content {
    if target == ABOUT_KAZAA_PATH {
        return Content::fixed(ABOUT_KAZAA);
    }
    let path = target.split('?').next().unwrap_or(target);
    let asked = path
        .strip_prefix("/bytes/")
        .and_then(|number| number.parse::<u64>().ok());
    let length = asked.unwrap_or_else(|| 1_000 + digest(target.as_bytes()) % 8_000);
    Content::named(target, length.min(LARGEST))
}

// --- server ---

/// Answers the requests of one connection in the clear.
pub(super) async fn answer(stream: TcpStream, shared: Arc<Shared>) -> anyhow::Result<()> {
    serve_http1(stream, shared).await
}

/// Answers HTTP/1.1 on any stream.
pub(super) async fn serve_http1<S>(stream: S, shared: Arc<Shared>) -> anyhow::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| respond(request, Arc::clone(&shared)));
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new());
    builder
        .serve_connection(TokioIo::new(stream), service)
        .await
        .context("HTTP/1.1")
}

/// Answers one request.
pub(super) async fn respond(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Payload>, Infallible> {
    let target = request
        .uri()
        .path_and_query()
        .map_or("/", |target| target.as_str())
        .to_owned();
    let (status, content) = match *request.method() {
        Method::GET => (StatusCode::OK, content_of(&target)),
        Method::POST => receive(&target, request.into_body()).await,
        _ => (StatusCode::METHOD_NOT_ALLOWED, Content::fixed("")),
    };
    let mut response = Response::new(Payload::answer(&target, content, shared.seed));
    *response.status_mut() = status;
    Ok(response)
}

/// Compares an upload with the content of the same name.
async fn receive(target: &str, mut body: Incoming) -> (StatusCode, Content) {
    let mut expected = Expected::new(content_of(target));
    let outcome = match drain(&mut body, &mut expected).await {
        Ok(()) => expected.finish().map_err(Into::into),
        Err(error) => Err(error),
    };
    match outcome {
        Ok(()) => (StatusCode::CREATED, receipt(target)),
        Err(error) => (StatusCode::BAD_REQUEST, Content::fixed(error.to_string())),
    }
}

/// What the server says about an upload that arrived unaltered.
pub(super) fn receipt(target: &str) -> Content {
    Content::fixed(format!("stored {target} unaltered\n"))
}

async fn drain(body: &mut Incoming, expected: &mut Expected) -> anyhow::Result<()> {
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
        if let Ok(piece) = frame.context("the body ended early")?.into_data() {
            expected.check(&piece)?;
        }
    }
    Ok(())
}

/// A body of either direction.
pub(super) struct Payload {
    content: Content,
    pieces: Option<StdRng>,
}

impl Payload {
    /// What the server with `seed` answers at `target`.
    pub(super) fn answer(target: &str, content: Content, seed: u64) -> Self {
        Self::in_pieces(content, seed ^ digest(target.as_bytes()))
    }

    /// Content in pieces of drawn sizes, so that segment borders fall anywhere.
    fn in_pieces(content: Content, seed: u64) -> Self {
        Self {
            content,
            pieces: Some(StdRng::seed_from_u64(seed)),
        }
    }

    /// Content in the largest pieces.
    fn whole(content: Content) -> Self {
        Self {
            content,
            pieces: None,
        }
    }

    /// No body.
    fn none() -> Self {
        Self::whole(Content::fixed(""))
    }

    /// The next piece as it is written, until the end.
    pub(super) fn next_piece(&mut self) -> Option<Bytes> {
        let most = match &mut self.pieces {
            Some(rng) => rng.random_range(1..=LARGEST_PIECE),
            None => LARGEST_PIECE,
        };
        self.content.take(most)
    }

    /// Octets not yet written.
    pub(super) fn remaining(&self) -> u64 {
        self.content.remaining()
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.next_piece().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.content.remaining() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.content.remaining())
    }
}

// --- client ---

/// One page of some kilobytes.
pub(super) async fn page(visit: &mut Visit) -> anyhow::Result<()> {
    let target = page_target(&mut visit.rng);
    get_in_the_clear(visit, &target).await
}

/// Four pages, one after the other, over one connection.
pub(super) async fn keep_alive(visit: &mut Visit) -> anyhow::Result<()> {
    let mut connection = Connection::open(visit.tcp(Service::Http).await?).await?;
    for _ in 0..KEEP_ALIVE_PAGES {
        connection.get(&page_target(&mut visit.rng)).await?;
    }
    Ok(())
}

/// A download of 64 to 512 KiB.
pub(super) async fn download(visit: &mut Visit) -> anyhow::Result<()> {
    let target = bytes_target(&mut visit.rng, DOWNLOAD_SIZES);
    get_in_the_clear(visit, &target).await
}

/// A path of digits and a file name, as application stores use it.
pub(super) async fn digits(visit: &mut Visit) -> anyhow::Result<()> {
    let target = digits_target(&mut visit.rng);
    get_in_the_clear(visit, &target).await
}

/// A path that begins with a dot (RFC 8615).
pub(super) async fn well_known(visit: &mut Visit) -> anyhow::Result<()> {
    let target = well_known_target(&mut visit.rng);
    get_in_the_clear(visit, &target).await
}

/// A page asked for with cookies of 6 to 12 KiB.
pub(super) async fn large_head(visit: &mut Visit) -> anyhow::Result<()> {
    let request = cookie_request(&mut visit.rng)?;
    Connection::open(visit.tcp(Service::Http).await?)
        .await?
        .fetch(request)
        .await
}

/// An upload of 1 to 64 KiB.
pub(super) async fn upload(visit: &mut Visit) -> anyhow::Result<()> {
    let target = bytes_target(&mut visit.rng, UPLOAD_SIZES);
    post(visit, &target).await
}

/// The page that describes FastTrack.
pub(super) async fn page_about_kazaa(visit: &mut Visit) -> anyhow::Result<()> {
    get_in_the_clear(visit, ABOUT_KAZAA_PATH).await
}

/// The same page on its way to a server.
pub(super) async fn upload_about_kazaa(visit: &mut Visit) -> anyhow::Result<()> {
    post(visit, ABOUT_KAZAA_PATH).await
}

/// A path that names a page.
pub(super) fn page_target(draws: &mut StdRng) -> String {
    format!("/news/{:08x}.html", draws.random::<u32>())
}

/// A path that names that many octets, and whose they are.
pub(super) fn bytes_target(draws: &mut StdRng, size: RangeInclusive<u64>) -> String {
    let (octets, name) = (draws.random_range(size), draws.random::<u32>());
    format!("/bytes/{octets}?name={name:08x}")
}

/// A path that begins with digits.
pub(super) fn digits_target(draws: &mut StdRng) -> String {
    format!("/{}/app.apk", draws.random_range(10_000..1_000_000))
}

/// A path that begins with a dot.
pub(super) fn well_known_target(draws: &mut StdRng) -> String {
    format!(
        "/.well-known/acme-challenge/{:032x}",
        draws.random::<u128>()
    )
}

async fn get_in_the_clear(visit: &Visit, target: &str) -> anyhow::Result<()> {
    Connection::open(visit.tcp(Service::Http).await?)
        .await?
        .get(target)
        .await
}

async fn post(visit: &Visit, target: &str) -> anyhow::Result<()> {
    let request = post_request(target)?;
    let mut connection = Connection::open(visit.tcp(Service::Http).await?).await?;
    let response = connection
        .sender
        .send_request(request)
        .await
        .context("no response")?;
    check(response, StatusCode::CREATED, receipt(target)).await
}

/// A browser's request for `target`.
pub(super) fn get_request(target: &str) -> anyhow::Result<Request<Payload>> {
    let request = Request::get(target)
        .header(header::HOST, "www.example.test")
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::ACCEPT, "text/html,application/xhtml+xml,*/*;q=0.8")
        .header(header::ACCEPT_LANGUAGE, "en-GB,en;q=0.5");
    Ok(request.body(Payload::none())?)
}

/// A browser's upload to `target`.
pub(super) fn post_request(target: &str) -> anyhow::Result<Request<Payload>> {
    let mut request = get_request(target)?;
    *request.method_mut() = Method::POST;
    *request.body_mut() = Payload::whole(content_of(target));
    Ok(request)
}

/// A browser's request for a page, with cookies of 6 to 12 KiB.
pub(super) fn cookie_request(draws: &mut StdRng) -> anyhow::Result<Request<Payload>> {
    let mut request = get_request(&page_target(draws))?;
    let length = draws.random_range(6 * 1024..=12 * 1024);
    let cookie = format!("{:032x}", draws.random::<u128>()).repeat(length / 32);
    request
        .headers_mut()
        .insert(header::COOKIE, format!("session={cookie}").parse()?);
    Ok(request)
}

/// An HTTP/1.1 connection over any stream; it ends when dropped.
pub(super) struct Connection {
    sender: SendRequest<Payload>,
    _driver: JoinSet<()>,
}

impl Connection {
    /// Speaks HTTP/1.1 on `stream`.
    pub(super) async fn open<S>(stream: S) -> anyhow::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Self {
            sender,
            _driver: drive(connection),
        })
    }

    /// Asks for `target` and compares what comes.
    pub(super) async fn get(&mut self, target: &str) -> anyhow::Result<()> {
        self.fetch(get_request(target)?).await
    }

    async fn fetch(&mut self, request: Request<Payload>) -> anyhow::Result<()> {
        let target = request.uri().to_string();
        self.sender.ready().await.context("the connection ended")?;
        let response = self
            .sender
            .send_request(request)
            .await
            .context("no response")?;
        check(response, StatusCode::OK, content_of(&target)).await
    }
}

/// Runs a connection's own half until the returned handle is dropped. Its errors reach whoever
/// waits for a response.
pub(super) fn drive<E: Send + 'static>(
    connection: impl Future<Output = Result<(), E>> + Send + 'static,
) -> JoinSet<()> {
    let mut driver = JoinSet::new();
    driver.spawn(async {
        let _reported_to_the_sender = connection.await;
    });
    driver
}

/// Compares a response with what was asked for.
pub(super) async fn check(
    response: Response<Incoming>,
    status: StatusCode,
    content: Content,
) -> anyhow::Result<()> {
    ensure!(response.status() == status, "status {}", response.status());
    let mut expected = Expected::new(content);
    drain(&mut response.into_body(), &mut expected).await?;
    expected.finish().map_err(|altered: Altered| altered.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bytes_path_names_its_length_and_other_paths_are_pages() {
        assert_eq!(content_of("/bytes/70000?name=1").remaining(), 70_000);
        assert!((1_000..9_000).contains(&content_of("/12345/app.apk").remaining()));
        assert!((1_000..9_000).contains(&content_of("/bytes/many").remaining()));
        assert_eq!(content_of("/bytes/99999999999999").remaining(), LARGEST);
    }

    #[test]
    fn the_page_about_kazaa_shows_every_mark_of_the_protocol() {
        for mark in [
            "GET /.hash=",
            "GIVE ",
            "X-Kazaa-Username:",
            "X-KazaaTag:",
            "UserAgent:",
        ] {
            assert!(
                ABOUT_KAZAA.contains(&format!("\n{mark}")),
                "{mark} begins no line"
            );
        }
    }

    #[test]
    fn a_body_arrives_whole_however_it_is_cut() {
        let mut payload = Payload::in_pieces(Content::named("x", 50_000), 3);
        let mut expected = Expected::new(Content::named("x", 50_000));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut pieces = 0;
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut payload).poll_frame(&mut cx) {
            expected.check(&frame.into_data().unwrap()).unwrap();
            pieces += 1;
        }
        assert!(pieces > 3 && payload.is_end_stream());
        assert_eq!(expected.finish(), Ok(()));
    }
}
