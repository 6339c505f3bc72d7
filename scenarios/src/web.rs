//! The control group: what became of the ordinary requests of one run.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use simulator::report::{Event, RequestId};

use crate::observe::HostLine;

/// A share of requests, in percent, that the usual time of a kind is read at.
const USUAL_PERCENTILE: usize = 99;

/// One control-group request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The host it came from.
    pub host: String,
    /// Kind by name, as the client reports it.
    pub kind: String,
    /// When it began, in microseconds since the Unix epoch.
    pub began_us: u64,
    /// How it ended.
    pub end: End,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Everything asked for arrived unaltered, after so long.
    Ok(Duration),
    /// It did not, after so long, for the reason given.
    Failed(Duration, String),
    /// The client was stopped first; the request had been open for so long.
    Open(Duration),
}

/// All control-group requests of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebAccount {
    /// In the order in which they began.
    pub requests: Vec<Request>,
}

impl WebAccount {
    /// Reads the requests out of the hosts' reports.
    #[must_use]
    pub fn read(lines: &[HostLine]) -> Self {
        let mut requests = BTreeMap::<(&str, &str, RequestId), Request>::new();
        let mut last_us = BTreeMap::<(&str, &str), u64>::new();
        for HostLine { host, line } in lines {
            last_us.insert((host, &line.who), line.t_us);
            match &line.event {
                Event::WebRequest { id, kind, .. } => {
                    let request = Request {
                        host: host.clone(),
                        kind: kind.clone(),
                        began_us: line.t_us,
                        end: End::Open(Duration::ZERO),
                    };
                    requests.insert((host, &line.who, *id), request);
                }
                Event::WebResult {
                    id,
                    kind,
                    ok,
                    micros,
                    error,
                    ..
                } => {
                    let took = Duration::from_micros(*micros);
                    let end = if *ok {
                        End::Ok(took)
                    } else {
                        let why = error
                            .clone()
                            .unwrap_or_else(|| "no reason given".to_owned());
                        End::Failed(took, why)
                    };
                    let began_us = line.t_us.saturating_sub(*micros);
                    requests
                        .entry((host, &line.who, *id))
                        .or_insert_with(|| Request {
                            host: host.clone(),
                            kind: kind.clone(),
                            began_us,
                            end: End::Open(Duration::ZERO),
                        })
                        .end = end;
                }
                _ => {}
            }
        }
        let mut requests: Vec<_> = requests
            .into_iter()
            .map(|((host, who, _), request)| request.closed_at(last_us[&(host, who)]))
            .collect();
        requests.sort_by_key(|request| request.began_us);
        Self { requests }
    }

    /// The requests of one host.
    pub fn of<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a Request> {
        self.requests
            .iter()
            .filter(move |request| request.host == host)
    }

    /// The time within which 99 in 100 of a kind's requests succeeded; none without a success.
    #[must_use]
    pub fn usual(&self, kind: &str) -> Option<Duration> {
        let mut times: Vec<_> = self
            .requests
            .iter()
            .filter(|request| request.kind == kind)
            .filter_map(|request| match request.end {
                End::Ok(took) => Some(took),
                End::Failed(..) | End::Open(_) => None,
            })
            .collect();
        times.sort_unstable();
        let rank = (times.len() * USUAL_PERCENTILE).div_ceil(100);
        times.get(rank.checked_sub(1)?).copied()
    }
}

impl Request {
    /// A request without a result had been open until its client's last line.
    fn closed_at(mut self, last_us: u64) -> Self {
        if let End::Open(open) = &mut self.end {
            *open = Duration::from_micros(last_us.saturating_sub(self.began_us));
        }
        self
    }

    /// How long it took, or had taken when the client was stopped.
    #[must_use]
    pub fn took(&self) -> Duration {
        match &self.end {
            End::Ok(took) | End::Failed(took, _) | End::Open(took) => *took,
        }
    }
}
