//! Who looks at the daemon from a browser or from Prometheus, and what there is to be seen.

use tracing::{info, warn};

use super::daemon::Daemon;
use super::worker::Request;
use super::{nft, queue};
use crate::Timestamp;
use crate::control::setting::HttpListen;
use crate::http::{
    Body, Document, Format, History, HttpServer, Lists, Overview, QueueState, exposition, page,
};
use rustix::event::PollFd;

/// Locked hosts, and known peers, that stand on the page at most: more is for the commands.
const LONGEST_LIST: usize = 200;

/// The server, and what it remembers between visits.
#[derive(Debug)]
pub(super) struct Visitors {
    server: HttpServer,
    history: History,
}

impl Visitors {
    /// Listens where it was configured. A daemon that nobody can look at still does its work.
    pub(super) fn listen(place: &HttpListen) -> Option<Visitors> {
        match HttpServer::bind(place) {
            Ok(server) => {
                let server = server?;
                info!(?place, "metrics and status page are served");
                let history = History::default();
                Some(Visitors { server, history })
            }
            Err(error) => {
                warn!(%error, ?place, "metrics and status page are not served");
                None
            }
        }
    }

    /// What to wait for.
    pub(super) fn sources(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.server.sources()
    }

    /// Answers whoever has come.
    pub(super) fn serve(&mut self, now: Timestamp, daemon: &mut Daemon) {
        let Visitors { server, history } = self;
        if history.due() <= now {
            history.record(now, &daemon.statistics());
        }
        server.serve(now, &mut |request| match request.document {
            Document::Metrics => {
                let format = match request.open_metrics {
                    true => Format::OpenMetrics,
                    false => Format::Text,
                };
                Body {
                    media_type: format.media_type(),
                    text: exposition(&overview(now, daemon), format),
                }
            }
            Document::Page => Body {
                media_type: "text/html; charset=utf-8",
                text: page(&overview(now, daemon), &lists(daemon), history),
            },
        });
    }
}

fn overview(now: Timestamp, daemon: &mut Daemon) -> Overview {
    let counted = daemon.statistics();
    let (clients, peers) = daemon.census();
    let queues = daemon.queues.iter().map(|open| {
        let standing = queue::standing(open.number);
        QueueState {
            number: open.number,
            class: open.class,
            waiting: standing.map(|standing| standing.waiting),
            losses: standing.map(|standing| standing.losses).unwrap_or_default(),
        }
    });
    let operations = &daemon.operations;
    Overview {
        now,
        uptime: operations.uptime(now),
        counted,
        clients,
        peers,
        queues: queues.collect(),
        rules_present: nft::has_own_table()
            .ok()
            .map(|is_there| is_there && !daemon.guard.is_missing()),
        mode: operations.configuration.settings().mode.value,
        reload: operations.last_reading(),
        state: operations.state_health(),
    }
}

fn lists(daemon: &Daemon) -> Lists {
    let asked = daemon.workers.ask_all(|reply| {
        Request::operate(reply, |engine, now| {
            let (mut clients, mut peers) = (engine.clients(now), engine.peers(now));
            clients.truncate(LONGEST_LIST);
            peers.truncate(LONGEST_LIST);
            Lists { clients, peers }
        })
    });
    let mut lists = Lists::default();
    for of_worker in asked.into_iter().flatten() {
        lists.clients.extend(of_worker.clients);
        lists.peers.extend(of_worker.peers);
    }
    lists.clients.sort_unstable_by_key(|client| client.client);
    lists
        .peers
        .sort_unstable_by_key(|known| (known.client, known.peer));
    lists.clients.truncate(LONGEST_LIST);
    lists.peers.truncate(LONGEST_LIST);
    lists
}
