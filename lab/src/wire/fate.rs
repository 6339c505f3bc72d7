//! What becomes of a frame: drawn from the seed, the flow and the frame's place in the flow.
//!
//! No draw depends on what other flows do, so one stray frame more or less leaves everybody else's
//! fate alone, and a run can be repeated.

use super::WireSettings;

/// What becomes of a frame. A lost frame is neither duplicated nor reordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) lost: bool,
    pub(crate) duplicated: bool,
    pub(crate) reordered: bool,
}

/// The flow of a frame, one direction of it.
///
/// Ports that the kernel draws for a client differ from run to run, so they are left out: flows between
/// the same two hosts to the same service share one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Flow {
    /// ARP keeps a link alive and belongs to no flow: it has no fate.
    AddressResolution,
    Ipv4 {
        source: [u8; 4],
        destination: [u8; 4],
        protocol: u8,
        ports: [u16; 2],
    },
    Other {
        ether_type: u16,
    },
}

impl Flow {
    pub(crate) fn of(frame: &[u8]) -> Self {
        match frame {
            [_, _, _, _, _, _, _, _, _, _, _, _, 0x08, 0x06, ..] => Self::AddressResolution,
            [_, _, _, _, _, _, _, _, _, _, _, _, 0x08, 0x00, packet @ ..] => Self::of_ipv4(packet),
            [_, _, _, _, _, _, _, _, _, _, _, _, high, low, ..] => Self::Other {
                ether_type: u16::from_be_bytes([*high, *low]),
            },
            _ => Self::Other { ether_type: 0 },
        }
    }

    fn of_ipv4(packet: &[u8]) -> Self {
        let [
            version,
            _,
            _,
            _,
            _,
            _,
            flags,
            offset,
            _,
            protocol,
            _,
            _,
            addresses @ ..,
        ] = packet
        else {
            return Self::Other {
                ether_type: ETHER_TYPE_IPV4,
            };
        };
        let [a, b, c, d, e, f, g, h, ..] = addresses else {
            return Self::Other {
                ether_type: ETHER_TYPE_IPV4,
            };
        };
        let first_fragment = (flags & 0x1f, *offset) == (0, 0);
        let header = usize::from(version & 0x0f) * 4;
        let transport = packet
            .get(header..)
            .filter(|_| first_fragment)
            .unwrap_or_default();
        let ports = match (protocol, transport) {
            (&TCP | &UDP, [a, b, c, d, ..]) => [service_port([*a, *b]), service_port([*c, *d])],
            _ => [0, 0],
        };
        Self::Ipv4 {
            source: [*a, *b, *c, *d],
            destination: [*e, *f, *g, *h],
            protocol: *protocol,
            ports,
        }
    }

    /// A number for the flow, the same on every machine.
    fn number(self) -> u64 {
        match self {
            Self::AddressResolution => 0,
            Self::Other { ether_type } => scramble(u64::from(ether_type) | 1 << 32),
            Self::Ipv4 {
                source,
                destination,
                protocol,
                ports: [from, to],
            } => {
                let hosts = u64::from(u32::from_be_bytes(source)) << 32
                    | u64::from(u32::from_be_bytes(destination));
                let service = u64::from(protocol) << 32 | u64::from(from) << 16 | u64::from(to);
                scramble(scramble(hosts) ^ service)
            }
        }
    }
}

impl Fate {
    /// The fate of frame number `index`, counted from 0, of `flow`.
    pub(crate) fn draw(settings: &WireSettings, flow: Flow, index: u64) -> Self {
        let mut lot = scramble(settings.seed ^ scramble(flow.number() ^ scramble(index)));
        let mut happens = |percent: f64| {
            lot = scramble(lot);
            unit(lot) * 100.0 < percent
        };
        let lost = happens(settings.loss_pct);
        let duplicated = happens(settings.duplicate_pct);
        let reordered = happens(settings.reorder_pct);
        Self {
            lost,
            duplicated: duplicated && !lost,
            reordered: reordered && !lost,
        }
    }
}

const ETHER_TYPE_IPV4: u16 = 0x0800;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Lower end of the port range that every node of a lab is given (see `sysctl`).
const FIRST_EPHEMERAL_PORT: u16 = 32_768;

/// The port if it names a service, 0 if the kernel drew it.
fn service_port(octets: [u8; 2]) -> u16 {
    let port = u16::from_be_bytes(octets);
    if port < FIRST_EPHEMERAL_PORT { port } else { 0 }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): one step of the generator, used as a mixing function.
fn scramble(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A number in [0, 1) from the upper 53 bits, as many as a double holds.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_flow_and_place_draw_the_same_fate() {
        let flow = Flow::of(&udp_frame(4000, 1214));
        assert_eq!(losses(7, flow), losses(7, flow));
        assert_ne!(losses(7, flow), losses(8, flow));
    }

    #[test]
    fn the_two_directions_and_other_services_have_fates_of_their_own() {
        let there = losses(7, Flow::of(&udp_frame(80, 1214)));
        assert_ne!(there, losses(7, Flow::of(&udp_frame(1214, 80))));
        assert_ne!(there, losses(7, Flow::of(&udp_frame(80, 1215))));
    }

    #[test]
    fn ports_drawn_by_the_kernel_make_no_difference() {
        assert_eq!(
            Flow::of(&udp_frame(32_768, 1214)),
            Flow::of(&udp_frame(60_999, 1214))
        );
        assert_ne!(
            Flow::of(&udp_frame(32_767, 1214)),
            Flow::of(&udp_frame(60_999, 1214))
        );
    }

    #[test]
    fn shares_come_out_as_asked() {
        let flow = Flow::of(&udp_frame(80, 1214));
        let lost = losses(1, flow).iter().filter(|&&lost| lost).count();
        assert!((250..350).contains(&lost), "30 % of 1000: {lost}");
    }

    #[test]
    fn nothing_happens_at_nought_and_everything_at_a_hundred_percent() {
        let flow = Flow::of(&udp_frame(80, 1214));
        let none = Fate {
            lost: false,
            duplicated: false,
            reordered: false,
        };
        let all = WireSettings {
            duplicate_pct: 100.0,
            reorder_pct: 100.0,
            ..WireSettings::default()
        };
        for index in 0..1000 {
            assert_eq!(Fate::draw(&WireSettings::default(), flow, index), none);
            let fate = Fate::draw(&all, flow, index);
            assert!(fate.duplicated && fate.reordered && !fate.lost);
        }
    }

    #[test]
    fn a_later_fragment_and_a_cut_frame_are_flows_without_ports() {
        let mut fragment = udp_frame(80, 1214);
        fragment[14 + 7] = 1;
        let Flow::Ipv4 { ports, .. } = Flow::of(&fragment) else {
            panic!("still IPv4")
        };
        assert_eq!(ports, [0, 0]);
        for length in 0..fragment.len() {
            let _ = Flow::of(&fragment[..length]);
        }
    }

    #[test]
    fn address_resolution_is_told_apart() {
        let mut frame = udp_frame(1, 2);
        frame[13] = 0x06;
        assert_eq!(Flow::of(&frame), Flow::AddressResolution);
    }

    fn losses(seed: u64, flow: Flow) -> Vec<bool> {
        let settings = WireSettings {
            loss_pct: 30.0,
            seed,
            ..WireSettings::default()
        };
        (0..1000)
            .map(|index| Fate::draw(&settings, flow, index).lost)
            .collect()
    }

    /// Ethernet, an IPv4 header of 20 octets from 10.0.0.1 to 10.0.0.2, the UDP ports.
    fn udp_frame(from: u16, to: u16) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00]);
        frame.extend([
            0x45, 0, 0, 28, 0, 0, 0, 0, 64, UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ]);
        frame.extend(from.to_be_bytes());
        frame.extend(to.to_be_bytes());
        frame
    }
}
