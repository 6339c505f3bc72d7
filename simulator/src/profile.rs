//! Client families as data. A new family or variant is a row here and a name in [`PROFILES`].
//!
//! Numbers are those of real clients where a source names them: PROTO (protocol notes of the
//! giFT-FastTrack project), LJ (Linux Journal article 6945), LKR (Liang, Kumar, Ross on Kazaa), giFT
//! and MLD (observed behaviour of the two open clients). Kazaa's own dial and handshake timeouts are
//! not known; giFT's stand in.

use std::time::Duration;

use crate::report::Mode;
use crate::wire::Network;

/// Every family and variant, in the order of the help text.
pub const PROFILES: [&Profile; 12] = [
    &KAZAA,
    &KAZAALITE,
    &IMESH,
    &GROKSTER,
    &GIFT,
    &MLDONKEY,
    &SILENT,
    &PORT80,
    &PORT_HOPPER,
    &HTTP_ONLY,
    &UPLOADER,
    &SEQUENTIAL,
];

/// How one client behaves.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Name on the command line.
    pub name: &'static str,
    /// The network it belongs to.
    pub network: Network,
    /// Last byte of the encryption word in its pings.
    pub ping_encryption: u8,
    /// How many addresses its cache holds.
    pub cache_limit: usize,
    /// What becomes of an address that could not be reached.
    pub failed_node: FailedNode,
    /// Its ways of looking for the network; it moves down the list when it believes it is blocked,
    /// and from the end to the top again.
    pub ladder: &'static [Rung],
    /// How it pings.
    pub pinging: Pinging,
    /// When it replaces dials that ended.
    pub redial: Redial,
    /// Whether a 0x29 invites a dial as a 0x28 does (giFT; real Kazaa never dials those, PROTO).
    pub dials_pong2: bool,
    /// Which port of a peer it talks to outside [`Mode::Port80`].
    pub peer_port: PeerPort,
    /// How many sessions it wants.
    pub sessions: usize,
    /// Its 12-byte opener.
    pub opener: Opener,
    /// Length of the user name it sends in sessions: user info is 13 octets more.
    pub user_name_len: usize,
    /// Whether its network name and user info share a segment.
    pub coalesces: bool,
    /// What it wants besides a session.
    pub transfer: Transfer,
    /// How its HTTP requests look.
    pub http: HttpStyle,
    /// How long it waits for what.
    pub patience: Patience,
}

/// What becomes of an address that could not be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedNode {
    /// Forgotten (giFT).
    Removed,
    /// Kept, and left alone for a while (MLD: 600 s).
    Rests(Duration),
}

/// One way of looking for the network and how many dials it keeps in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rung {
    /// The way.
    pub mode: Mode,
    /// Dials in flight at once.
    pub parallel: usize,
}

/// How a client pings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pinging {
    /// Not at all, as behind a firewall that stops UDP.
    Never,
    /// Its whole cache at once, in [`Mode::UdpFlood`] only (LJ: "flood").
    Flood,
    /// So many back to back, the next burst when none is outstanding, none while connected (giFT: 10).
    Bursts(usize),
    /// One to each peer just dialled (MLD).
    AfterDial,
}

/// When a client replaces dials that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redial {
    /// At once.
    AtOnce,
    /// Only at its regular tick (MLD: 60 s).
    OnTick,
}

/// Which port of a peer a client talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerPort {
    /// The one it knows the peer by.
    Listed,
    /// Another one at each attempt, and a new UDP port of its own at each round of pings.
    Hopping,
}

/// The first 12 bytes of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Opener {
    /// Twelve random bytes, as from real Kazaa.
    Random,
    /// The same twelve bytes every time, as from both open clients.
    Constant,
    /// Random, but mostly small numbers: nothing that looks encrypted.
    PlainLooking,
}

/// What a client wants besides a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// A file, from a source its search has found.
    AfterSearch,
    /// A file, from sources it knows already (a link, an interrupted download); it joins nothing.
    FromKnownSources,
    /// To give a file to peers that asked for a push; it joins nothing.
    GiveAway,
}

/// How HTTP requests look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum HttpStyle {
    /// HTTP/1.1 with every `X-Kazaa-*` field.
    Kazaa,
    /// HTTP/1.1, `UserAgent` and three `X-Kazaa-*` fields; 279 octets.
    Gift,
    /// HTTP/1.0, `Connection` twice, no agent; 211 octets.
    Mldonkey,
    /// `GET /<id>/<name>` with every `X-Kazaa-*` field.
    OldStyle,
    /// `GET /.hash=` with ordinary fields only (MLD before 2003-03).
    Bare,
}

/// How long a client waits for what, at time scale 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a TCP handshake with a supernode.
    pub connect: Duration,
    /// For the session to come up once connected.
    pub handshake: Duration,
    /// For a pong.
    pub pong: Duration,
    /// With one way of looking for the network before it tries the next.
    pub mode: Duration,
    /// Between two looks at what is missing.
    pub tick: Duration,
    /// Between two one-byte keep-alives.
    pub keep_alive: Duration,
    /// For an answer to a keep-alive.
    pub keep_alive_answer: Duration,
    /// For a TCP handshake with a source.
    pub source_connect: Duration,
    /// For a response head.
    pub response: Duration,
    /// For the next bytes of a file.
    pub file: Duration,
    /// After which an address not heard of again leaves the cache.
    pub cache_age: Duration,
}

impl Patience {
    /// Every wait multiplied by `factor`.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self {
            connect: self.connect.mul_f64(factor),
            handshake: self.handshake.mul_f64(factor),
            pong: self.pong.mul_f64(factor),
            mode: self.mode.mul_f64(factor),
            tick: self.tick.mul_f64(factor),
            keep_alive: self.keep_alive.mul_f64(factor),
            keep_alive_answer: self.keep_alive_answer.mul_f64(factor),
            source_connect: self.source_connect.mul_f64(factor),
            response: self.response.mul_f64(factor),
            file: self.file.mul_f64(factor),
            cache_age: self.cache_age.mul_f64(factor),
        }
    }
}

impl Profile {
    /// Finds a row by its name.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        PROFILES.into_iter().find(|profile| profile.name == name)
    }

    /// Whether it joins the network at all.
    pub fn joins(&self) -> bool {
        self.sessions > 0
    }
}

/// Kazaa 2.x: floods its cache, dials who answers, falls back rung by rung (LJ).
pub const KAZAA: Profile = Profile {
    name: "kazaa",
    network: Network::Kazaa,
    ping_encryption: 0x29,
    cache_limit: 200,
    failed_node: FailedNode::Removed,
    ladder: &[
        Rung {
            mode: Mode::UdpFlood,
            parallel: 5,
        },
        Rung {
            mode: Mode::ParallelTcp,
            parallel: 5,
        },
        Rung {
            mode: Mode::SerialTcp,
            parallel: 1,
        },
        Rung {
            mode: Mode::Port80,
            parallel: 5,
        },
    ],
    pinging: Pinging::Flood,
    redial: Redial::AtOnce,
    dials_pong2: false,
    peer_port: PeerPort::Listed,
    sessions: 1,
    opener: Opener::Random,
    user_name_len: 11,
    coalesces: false,
    transfer: Transfer::AfterSearch,
    http: HttpStyle::Kazaa,
    patience: Patience {
        connect: Duration::from_secs(15),
        handshake: Duration::from_secs(10),
        pong: Duration::from_secs(20),
        mode: Duration::from_secs(20),
        tick: Duration::from_secs(60),
        keep_alive: Duration::from_secs(120),
        keep_alive_answer: Duration::from_secs(20),
        source_connect: Duration::from_secs(30),
        response: Duration::from_secs(15),
        file: Duration::from_secs(20),
        cache_age: Duration::from_secs(6 * 3600),
    },
};

/// Kazaa Lite 2.0: Kazaa without the advertisements, and with the older way of asking for a file.
pub const KAZAALITE: Profile = Profile {
    name: "kazaalite",
    user_name_len: 7,
    http: HttpStyle::OldStyle,
    ..KAZAA
};

/// iMesh 4: the same protocol under another network name.
pub const IMESH: Profile = Profile {
    name: "imesh",
    network: Network::Fileshare,
    user_name_len: 9,
    ..KAZAA
};

/// Grokster 1.7: the same protocol under a third name.
pub const GROKSTER: Profile = Profile {
    name: "grokster",
    network: Network::Grokster,
    user_name_len: 14,
    ..KAZAA
};

/// giFT with its FastTrack plug-in: five dials, then bursts of ten pings beside them.
pub const GIFT: Profile = Profile {
    name: "gift",
    cache_limit: 1000,
    ladder: &[Rung {
        mode: Mode::ParallelTcp,
        parallel: 5,
    }],
    pinging: Pinging::Bursts(10),
    dials_pong2: true,
    sessions: 4,
    opener: Opener::Constant,
    user_name_len: 7,
    http: HttpStyle::Gift,
    ..KAZAA
};

/// mldonkey: fifteen dials within a millisecond, a ping to each, and again a minute later.
pub const MLDONKEY: Profile = Profile {
    name: "mldonkey",
    ping_encryption: 0xa9,
    cache_limit: 500,
    failed_node: FailedNode::Rests(Duration::from_secs(600)),
    ladder: &[Rung {
        mode: Mode::ParallelTcp,
        parallel: 15,
    }],
    pinging: Pinging::AfterDial,
    redial: Redial::OnTick,
    dials_pong2: true,
    sessions: 5,
    opener: Opener::Constant,
    user_name_len: 6,
    coalesces: true,
    http: HttpStyle::Mldonkey,
    patience: Patience {
        connect: Duration::from_secs(30),
        handshake: Duration::from_secs(30),
        ..KAZAA.patience
    },
    ..KAZAA
};

/// No UDP at all and random openers: the least that a first contact can show.
pub const SILENT: Profile = Profile {
    name: "silent",
    ladder: &[
        Rung {
            mode: Mode::ParallelTcp,
            parallel: 5,
        },
        Rung {
            mode: Mode::SerialTcp,
            parallel: 1,
        },
        Rung {
            mode: Mode::Port80,
            parallel: 5,
        },
    ],
    pinging: Pinging::Never,
    ..KAZAA
};

/// Goes where a browser would go: peers' ports 80 and 443 from the start.
pub const PORT80: Profile = Profile {
    name: "port80",
    ladder: &[Rung {
        mode: Mode::Port80,
        parallel: 5,
    }],
    pinging: Pinging::Never,
    ..KAZAA
};

/// Never the same port twice, on either side.
pub const PORT_HOPPER: Profile = Profile {
    name: "port-hopper",
    peer_port: PeerPort::Hopping,
    ..KAZAA
};

/// Downloads from sources it knows; its first question is an odd one, which gets 501.
pub const HTTP_ONLY: Profile = Profile {
    name: "http-only",
    pinging: Pinging::Never,
    sessions: 0,
    transfer: Transfer::FromKnownSources,
    ..KAZAA
};

/// Gives a file away: dials out with `GIVE`, and is then asked for the file on that connection.
pub const UPLOADER: Profile = Profile {
    name: "uploader",
    pinging: Pinging::Never,
    sessions: 0,
    transfer: Transfer::GiveAway,
    ..KAZAA
};

/// One dial at a time and no UDP.
pub const SEQUENTIAL: Profile = Profile {
    name: "sequential",
    ladder: &[Rung {
        mode: Mode::SerialTcp,
        parallel: 1,
    }],
    pinging: Pinging::Never,
    ..KAZAA
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_is_found_by_its_own_name() {
        for profile in PROFILES {
            assert_eq!(Profile::by_name(profile.name), Some(profile));
        }
        assert_eq!(Profile::by_name("morpheus"), None);
    }

    #[test]
    fn a_tenth_of_the_time_scale_is_a_tenth_of_every_wait() {
        let scaled = KAZAA.patience.scaled(0.1);
        assert_eq!(scaled.connect, Duration::from_millis(1500));
        assert_eq!(scaled.keep_alive, Duration::from_secs(12));
    }
}
