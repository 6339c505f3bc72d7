//! Somebody who fetches as `real_web` has curl do it in namespaces: some pages several times over and
//! one large file, which is compared octet by octet.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use simulator::report::{Line, RequestId};
use simulator::web::{self, Kind};

use super::requests::{Requests, Wish};
use super::{Actor, Report, Scene};
use crate::stage::memory::script::{Content, Script, Side, Turn};
use crate::stage::memory::sockets::{Arrival, Transport};

/// The address that is fetched from.
pub(in crate::stage::memory) const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 90);

/// How often the pages are fetched.
const REPEATS: usize = 5;

/// After so long a fetch has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// The ways of fetching a page: the name in reports, and the kind of conversation it is.
const PAGES: [(&str, Kind); 3] = [
    ("curl_http1", Kind::Http1),
    ("curl_https_h1", Kind::TlsH1),
    ("curl_https_h2", Kind::TlsH2),
];

/// The name of the large download in reports.
const DOWNLOAD: &str = "curl_download";

/// What is asked for the large file, as curl asks.
const REQUEST: &str = "GET /download HTTP/1.1\r\nHost: 203.0.113.90\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n";

/// Somebody at an inside host.
pub(in crate::stage::memory) struct Downloader {
    address: Ipv4Addr,
    seed: u64,
    download: u64,
    /// Whether it begins only once its host has given itself away by a ping.
    waits: bool,
    next: usize,
    requests: Requests,
    done: bool,
    report: Report,
}

impl Downloader {
    pub(in crate::stage::memory) fn new(
        actor: usize,
        who: &str,
        address: Ipv4Addr,
        [seed, download]: [u64; 2],
        waits: bool,
    ) -> Self {
        Self {
            address,
            seed,
            download,
            waits,
            next: 0,
            requests: Requests::new(actor, address, PATIENCE),
            done: false,
            report: Report::new(who),
        }
    }

    /// Fetches one thing after the other.
    fn proceed(&mut self, scene: &mut Scene) {
        self.waits = self.waits && !scene.pinged.contains(&self.address);
        if self.waits || self.requests.running() > 0 {
            return;
        }
        let place = self.next;
        self.next += 1;
        let pages = REPEATS * PAGES.len();
        let (kind, script) = match place {
            _ if place < pages => {
                let (name, kind) = PAGES[place % PAGES.len()];
                (name, page(kind, self.seed, place as u64))
            }
            _ if place == pages => (DOWNLOAD, large_file(self.seed, self.download)),
            _ => {
                self.done = true;
                return;
            }
        };
        let wish = Wish {
            id: RequestId(place as u64),
            kind: kind.to_owned(),
            server: script.to,
            scripts: vec![script],
        };
        self.requests.begin(scene, &mut self.report, wish);
    }
}

fn page(kind: Kind, seed: u64, number: u64) -> Script {
    let mut exchange = web::exchange(kind, SERVER, seed, number);
    Script::from(exchange.conversations.remove(0))
}

fn large_file(seed: u64, length: u64) -> Script {
    let head = format!(
        "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nContent-Type: application/octet-stream\r\n\
         Content-Length: {length}\r\nConnection: keep-alive\r\nAccept-Ranges: bytes\r\n\r\n"
    );
    let turn = |from, content| Turn {
        from,
        after: Duration::ZERO,
        content,
    };
    Script {
        transport: Transport::Tcp,
        to: SocketAddrV4::new(SERVER, 80),
        turns: vec![
            turn(Side::Client, Content::Octets(REQUEST.into())),
            turn(Side::Server, Content::Octets(head.into_bytes())),
            turn(Side::Server, Content::Drawn { seed, length }),
        ],
    }
}

impl Actor for Downloader {
    fn start(&mut self, scene: &mut Scene) {
        self.proceed(scene);
    }

    fn handle(&mut self, scene: &mut Scene, arrival: Arrival) {
        self.requests.handle(scene, &mut self.report, arrival);
        self.proceed(scene);
    }

    fn handle_timeout(&mut self, scene: &mut Scene) {
        if !self.done {
            self.requests.handle_timeout(scene, &mut self.report);
            self.proceed(scene);
        }
    }

    fn poll_timeout(&self, _: Duration) -> Option<Duration> {
        self.requests.poll_timeout().filter(|_| !self.done)
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn stop(&mut self, _: &mut Scene) {
        self.done = true;
    }

    fn take_report(&mut self) -> Vec<Line> {
        std::mem::take(&mut self.report.lines)
    }
}
