//! ftwall in its image as the gateway between two Docker networks, with NET_ADMIN and nothing more: no
//! contact, the web passes, and both stay so when the container is killed and replaced under load.
//!
//! `ci/container` builds the images and finds or starts the engine. What is seen is judged as the
//! catalogue's runs are: by the client's socket, the outside wire and the peer's socket.

mod engine;
mod office;
mod run;

use std::collections::BTreeMap;
use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use scenarios::judge::{Finding, Terms, Weight, control, effect};
use scenarios::observe::Site;
use scenarios::record::Record;
use scenarios::scenario::{Browser, Client, RealWeb, Scenario, host_name};
use scenarios::stage::site;
use scenarios::web::{Request, WebAccount};

use self::run::{Gateway, play};

const NAME: &str = "ftwall_in_a_container_lets_no_contact_through_and_can_be_replaced";

const SEED: u64 = 1;

/// The host that has curl.
const FETCHING: usize = 4;

/// Long enough for a container to be replaced in the middle.
const WINDOW: Duration = Duration::from_secs(15);

/// How much longer than usual a request may take. A container's start may keep both processors busy, and
/// what waits in a queue when its reader dies is sent again after a second: how fast the web passes is for
/// the catalogue to say.
const SLOW_GRACE: Duration = Duration::from_secs(4);

fn main() -> ExitCode {
    if let Some(why) = engine::obstacle() {
        lab::requirements::skip_or_fail(NAME, &why);
        println!("container: skipped=1");
        return ExitCode::SUCCESS;
    }
    match prove() {
        Ok(account) => {
            println!("{account}");
            account.verdict()
        }
        Err(error) => {
            eprintln!("{NAME}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Two clients that ping, one of them at random and one constantly; users of a web server and of nginx.
fn scenario() -> Scenario {
    let browsing = |host| Browser {
        interval: Duration::from_millis(150),
        ..Browser::new(host, "http1,tls_h1,http_keep_alive,tls_h2", 90)
    };
    Scenario {
        window: WINDOW,
        slow_grace: SLOW_GRACE,
        ..Scenario::new("container", "ftwall in a container", FETCHING)
            .with(Client::new(1, "kazaa"))
            .with(Client::new(2, "gift"))
            .with(browsing(1))
            .with(browsing(3))
            .with(RealWeb {
                hosts: vec![FETCHING],
                download: 0,
            })
    }
}

fn prove() -> anyhow::Result<Account> {
    let scenario = scenario();
    let play = |gateway| play(&scenario, SEED, &host_name(FETCHING), gateway);
    let mut account = Account::new(site(&scenario, SEED)?);

    let open = play(Gateway::Open)?;
    let usual = account.enter("without ftwall", &open, |off| {
        control(&scenario.terms(), off)
    });
    let guarded = play(Gateway::Guarded)?;
    account.enter("with ftwall", &guarded, |on| {
        effect(&scenario.terms(), &usual, on)
    });
    let replaced = play(Gateway::Replaced)?;
    let terms = with_a_restart(scenario.terms());
    let web = account.enter("killed and replaced", &replaced, |on| {
        effect(&terms, &usual, on)
    });
    account.enter_outage(&replaced, &web);
    Ok(account)
}

/// What was no proof yet is forgotten with the daemon.
fn with_a_restart(mut terms: Terms) -> Terms {
    for host in terms.hosts.values_mut() {
        host.restarts = 1;
    }
    terms
}

/// What all runs came to.
struct Account {
    site: Site,
    findings: Vec<Finding>,
    runs: usize,
    requests: usize,
    attempts: usize,
}

impl Account {
    fn new(site: Site) -> Self {
        Self {
            site,
            findings: Vec::new(),
            runs: 0,
            requests: 0,
            attempts: 0,
        }
    }

    /// Judges a run, says what was seen of it, and returns what became of its ordinary requests.
    fn enter(
        &mut self,
        name: &str,
        record: &Record,
        judge: impl FnOnce(&scenarios::judge::Run) -> Vec<Finding>,
    ) -> WebAccount {
        let run = record.judgeable(&self.site);
        let findings = judge(&run);
        let mut levels = BTreeMap::new();
        for row in run.ledger.rows.values() {
            for level in row.levels() {
                *levels.entry(level).or_insert(0) += row.count(level);
            }
        }
        let levels: Vec<_> = levels
            .iter()
            .map(|(level, count)| format!("{level} {count}"))
            .collect();
        let attempts = record.observations(&self.site).attempts.len();
        let requests = run.web.requests.len();
        println!(
            "{name}: {attempts} attempts, arrived: {}; {requests} ordinary requests",
            if levels.is_empty() {
                "nothing".to_owned()
            } else {
                levels.join(", ")
            }
        );
        for finding in &findings {
            println!("  {finding}");
        }
        self.runs += 1;
        self.requests += requests;
        self.attempts += attempts;
        self.findings.extend(findings);
        run.web
    }

    /// A time without a daemon shows something only if both clients and users were busy in it.
    fn enter_outage(&mut self, record: &Record, web: &WebAccount) {
        let observations = record.observations(&self.site);
        for &(from_us, until_us) in &record.evidence.blind_us {
            let is_within = |at_us: u64| (from_us..=until_us).contains(&at_us);
            let begun = |request: &&Request| is_within(request.began_us);
            let requests = web.requests.iter().filter(begun).count();
            let tried = observations.attempts.iter();
            let attempts = tried.filter(|attempt| is_within(attempt.at_us)).count();
            println!(
                "  {:.1} s without a daemon: {attempts} attempts and {requests} ordinary requests began",
                Duration::from_micros(until_us - from_us).as_secs_f64()
            );
            for (what, count) in [("attempt", attempts), ("ordinary request", requests)] {
                if count == 0 {
                    let what = format!("no {what} began while there was no daemon");
                    println!("  {what}");
                    self.findings.push(Finding::Mishap { what });
                }
            }
        }
    }

    fn count(&self, weight: Weight) -> usize {
        let weighs = |finding: &&Finding| finding.weight() == weight;
        self.findings.iter().filter(weighs).count()
    }

    fn verdict(&self) -> ExitCode {
        if self.findings.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "container: void={} leaked={} web_failures={} runs={} attempts={} requests={}",
            self.count(Weight::Void),
            self.count(Weight::Leak),
            self.count(Weight::Web),
            self.runs,
            self.attempts,
            self.requests
        )
    }
}
