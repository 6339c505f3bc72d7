//! Offices drawn from a seed: everything the catalogue holds still varies here.
//!
//! Only settings under which ftwall promises something are drawn. `--locked-dials watch`,
//! `--no-block-udp`, exemptions and short locks are choices to let contact happen; `--when-down pass`
//! says so for the time of an outage.

use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use simulator::profile::{PROFILES, Pinging, Profile, Transfer};
use simulator::web::{Kind, Service, Transport};

use crate::recipe::{BrowserRecipe, ClientRecipe, LineRecipe, OutageRecipe, Recipe};

/// Most hosts of an office, and most infected ones: more only take longer.
const MOST_HOSTS: usize = 4;
const MOST_CLIENTS: usize = 3;

/// Octets per segment that have hurt filters: single ones, and those around the twelve of an opener.
const SEGMENTS: [usize; 9] = [1, 2, 3, 5, 7, 11, 12, 13, 100];

/// Octets per fragment of a ping: the least that IP allows, and a little more.
const FRAGMENTS: [usize; 2] = [8, 16];

/// How long everybody acts, in milliseconds.
const WINDOW_MS: u64 = 5_000;

/// Locked hosts may dial ports below this one.
const FIRST_DIALED_PORT: u16 = 1024;

/// Within so many milliseconds of its beginning a client has shown what it is.
const FIRST_MOVES_MS: u64 = 300;

/// Clients begin within the first part of it.
const LATEST_START_MS: u64 = 1_500;

/// The office of a seed.
#[must_use]
pub fn recipe(seed: u64) -> Recipe {
    let mut draw = Draw(ChaCha8Rng::seed_from_u64(seed));
    let hosts = draw.0.random_range(1..=MOST_HOSTS);
    let outages = draw.outages();
    let line = draw.line();
    let mut recipe = Recipe {
        about: format!("drawn from seed {seed}"),
        seed,
        hosts,
        nat: draw.one_in(3),
        population: draw.0.random_range(30..=120),
        peer_segment: draw.segment(5),
        clients: draw.clients(hosts, &line, &outages),
        browsers: Vec::new(),
        ftwall: draw.options(),
        line,
        outages,
        window_ms: WINDOW_MS,
    };
    recipe.browsers = draw.browsers(&recipe);
    recipe
}

/// Whether ordinary traffic of a locked host passes: its dials to other ports than the web's are
/// dropped, and in strict mode whatever is not proven to be something else. That is the price of a
/// lock, not a finding.
fn passes_a_lock(kind: Kind, is_strict: bool) -> bool {
    let service = kind.service();
    match service.port() {
        _ if is_strict => matches!(service, Service::Http | Service::Tls),
        (Transport::Tcp, port) => port < FIRST_DIALED_PORT,
        (Transport::Udp, _) => true,
    }
}

struct Draw(ChaCha8Rng);

impl Draw {
    fn one_in(&mut self, many: u32) -> bool {
        self.0.random_ratio(1, many)
    }

    fn any<T: Clone>(&mut self, list: &[T]) -> T {
        list.choose(&mut self.0)
            .expect("no list here is empty")
            .clone()
    }

    fn line(&mut self) -> LineRecipe {
        if self.one_in(2) {
            return LineRecipe::default();
        }
        LineRecipe {
            delay_ms: self.0.random_range(0..=60),
            loss_pct: self.share(3),
            duplicate_pct: self.share(2),
            reorder_pct: self.share(5),
        }
    }

    /// A share of at most so many percent, in tenths so that it reads well; often none.
    fn share(&mut self, most_pct: u32) -> f64 {
        if self.one_in(3) {
            return 0.0;
        }
        f64::from(self.0.random_range(0..=most_pct * 10)) / 10.0
    }

    fn segment(&mut self, one_in: u32) -> Option<usize> {
        self.one_in(one_in).then(|| self.any(&SEGMENTS))
    }

    /// One client a host at most: a host's account is one, whoever speaks from it.
    fn clients(
        &mut self,
        hosts: usize,
        line: &LineRecipe,
        outages: &[OutageRecipe],
    ) -> Vec<ClientRecipe> {
        let infected = self.0.random_range(1..=hosts.min(MOST_CLIENTS));
        (1..=infected)
            .map(|host| self.client(host, line, outages))
            .collect()
    }

    fn client(&mut self, host: usize, line: &LineRecipe, outages: &[OutageRecipe]) -> ClientRecipe {
        let profile = self.any(&PROFILES);
        // A witness on the wire sees fragments of a ping whose others are lost; the peer sees none.
        let may_fragment = profile.pinging != Pinging::Never && line.loss_pct == 0.0;
        ClientRecipe {
            host,
            profile: profile.name.to_owned(),
            start_ms: self.start_ms(outages),
            opener: self
                .one_in(4)
                .then(|| self.any(&["random", "constant"]).to_owned()),
            http_style: self.http_style(profile),
            segment: self.segment(3),
            fragment: (may_fragment && self.one_in(6)).then(|| self.any(&FRAGMENTS)),
            transfer_port: self.one_in(6).then(|| self.any(&[80, 443])),
        }
    }

    /// Nobody begins while no daemon watches: what a client shows then is dropped and known to nobody,
    /// and it may dial afterwards like one that has shown nothing.
    fn start_ms(&mut self, outages: &[OutageRecipe]) -> u64 {
        if self.one_in(2) {
            return 0;
        }
        let drawn = self.0.random_range(0..=LATEST_START_MS);
        let overlaps = |outage: &&OutageRecipe| {
            (outage.at_ms.saturating_sub(FIRST_MOVES_MS)..=outage.at_ms + outage.for_ms)
                .contains(&drawn)
        };
        let overlapped = outages.iter().find(overlaps);
        overlapped.map_or(drawn, |outage| {
            outage.at_ms + outage.for_ms + FIRST_MOVES_MS
        })
    }

    fn http_style(&mut self, profile: &Profile) -> Option<String> {
        let asks = profile.transfer != Transfer::GiveAway;
        let styles = ["kazaa", "gift", "mldonkey", "old-style", "bare"];
        (asks && self.one_in(3)).then(|| self.any(&styles).to_owned())
    }

    fn browsers(&mut self, recipe: &Recipe) -> Vec<BrowserRecipe> {
        let is_strict = recipe.ftwall.iter().any(|option| option == "strict");
        let mut browsers = Vec::new();
        for host in 1..=recipe.hosts {
            let is_infected = recipe.clients.iter().any(|client| client.host == host);
            let passes = |kind: Kind| !is_infected || passes_a_lock(kind, is_strict);
            // On a long line that loses packets a large download outlasts a request's patience.
            let is_quick = |kind: Kind| recipe.line.loss_pct == 0.0 || kind != Kind::HttpBytes;
            let kinds = Kind::all().iter().copied();
            let kinds: Vec<_> = kinds
                .filter(|kind| passes(*kind) && is_quick(*kind))
                .collect();
            // What a strictly treated host had under way is unknown to a daemon that takes over.
            let is_known = !is_infected || !is_strict || recipe.outages.is_empty();
            if is_known && self.one_in(2) {
                browsers.push(self.browser(host, &kinds));
            }
        }
        browsers
    }

    fn browser(&mut self, host: usize, kinds: &[Kind]) -> BrowserRecipe {
        let many = self.0.random_range(1..=8);
        let kinds = kinds.sample(&mut self.0, many);
        let kinds: Vec<_> = kinds.map(|kind| kind.name()).collect();
        BrowserRecipe {
            host,
            kinds: kinds.join(","),
            requests: self.0.random_range(4..=24),
            interval_ms: self.0.random_range(20..=150),
        }
    }

    fn options(&mut self) -> Vec<String> {
        let mut options = Vec::new();
        let mut add = |option: &str, value: String| options.extend([option.to_owned(), value]);
        if self.one_in(2) {
            add("--lock-time", format!("{}s", self.0.random_range(20..=900)));
        }
        if self.one_in(4) {
            add("--strictness", "strict".to_owned());
        }
        if self.one_in(2) {
            add(
                "--reply",
                self.any(&["pong", "pong2", "other", "none"]).to_owned(),
            );
        }
        if self.one_in(6) {
            add(
                "--peer-expiry",
                format!("{}s", self.0.random_range(60..=600)),
            );
        }
        add("--when-down", "drop".to_owned());
        if self.one_in(4) {
            options.push("--no-reprobe".to_owned());
        }
        options
    }

    /// At most two, one after the other.
    fn outages(&mut self) -> Vec<OutageRecipe> {
        if !self.one_in(4) {
            return Vec::new();
        }
        let first = OutageRecipe {
            at_ms: self.0.random_range(200..=2_000),
            for_ms: self.0.random_range(20..=400),
        };
        let second = OutageRecipe {
            at_ms: self.0.random_range(2_500..=4_000),
            for_ms: self.0.random_range(20..=400),
        };
        if self.one_in(3) {
            vec![first, second]
        } else {
            vec![first]
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Enough that every choice comes up many times.
    const MANY: u64 = 2_000;

    #[test]
    fn a_seed_draws_the_same_office_every_time() {
        for seed in 0..20 {
            assert_eq!(recipe(seed), recipe(seed));
        }
        assert_ne!(recipe(1).clients, recipe(2).clients);
    }

    #[test]
    fn everything_drawn_can_be_played() {
        for seed in 0..MANY {
            let scenario = recipe(seed).scenario("drawn");
            assert!(scenario.is_ok(), "seed {seed}: {:#}", scenario.unwrap_err());
        }
    }

    #[test]
    fn every_family_kind_of_traffic_and_setting_comes_up() {
        let drawn: Vec<_> = (0..MANY).map(recipe).collect();
        let families: BTreeSet<_> = drawn
            .iter()
            .flat_map(|recipe| recipe.clients.iter().map(|client| client.profile.clone()))
            .collect();
        assert_eq!(families.len(), PROFILES.len());
        for kind in Kind::all() {
            let asked =
                |browser: &BrowserRecipe| browser.kinds.split(',').any(|one| one == kind.name());
            assert!(
                drawn.iter().any(|recipe| recipe.browsers.iter().any(asked)),
                "{kind}"
            );
        }
        for option in [
            "--lock-time",
            "--strictness",
            "--reply",
            "--peer-expiry",
            "--no-reprobe",
        ] {
            assert!(
                drawn
                    .iter()
                    .any(|recipe| recipe.ftwall.iter().any(|one| one == option)),
                "{option}"
            );
        }
        assert!(drawn.iter().any(|recipe| recipe.outages.len() == 2));
        assert!(drawn.iter().any(|recipe| recipe.nat) && drawn.iter().any(|recipe| !recipe.nat));
    }

    #[test]
    fn a_recipe_survives_being_written_down() {
        let kept = recipe(7);
        let text = serde_json::to_string(&kept).unwrap();
        assert_eq!(serde_json::from_str::<Recipe>(&text).unwrap(), kept);
    }

    #[test]
    fn a_mistyped_key_and_a_host_that_is_not_there_are_refused_by_name() {
        let text = serde_json::to_string(&recipe(7))
            .unwrap()
            .replace("\"window_ms\"", "\"windwo_ms\"");
        let error = serde_json::from_str::<Recipe>(&text)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("windwo_ms") && error.contains("line 1"),
            "{error}"
        );
        let mut nobody = recipe(7);
        nobody.clients[0].host = 9;
        let error = nobody.scenario("kept").unwrap_err().to_string();
        assert!(error.contains("host 9"), "{error}");
    }
}
