//! The gateway that lives through all rounds, and what is done to it and its lines.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use lab::presets::Office;
use lab::{Lab, Node};

use super::connections;
use super::daemon::{Daemon, Watched};
use super::damage::{self, ip, run};
use super::fault::{Effect, Fault, Incident};
use super::flood::Flood;
use super::place::Place;
use crate::device::Device;
use crate::stage::gateway::sleep_until;
use crate::stage::namespaces::{epoch_us, now};

/// The second address that the gateway has outside at times.
const OTHER_WAN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);

/// The host that floods: it is none of those that are judged, but lives beside one of them.
const FLOODING: &str = "client1";

/// Hosts that flood a queue, and how many packets each: what one may ask at once.
const FLOODERS: u8 = 8;
const AT_ONCE: u16 = 2_000;

/// Hosts that give a daemon something to remember, and how many pings each.
const MANY_HOSTS: u8 = 250;
const PINGS_EACH: u16 = 100;

/// Time in which packets gather that nobody answers.
const GATHERING: Duration = Duration::from_millis(400);

/// Verdicts for packets that were gone.
const PACKETS_GONE: &str = "ftwall_queue_errors_total{kind=\"packet_gone\"}";

/// A gateway in a network that stands.
pub(crate) struct Gateway<'a> {
    lab: &'a Lab,
    node: &'a Node,
    outside: &'a Node,
    address: Ipv4Addr,
    daemon: Option<Daemon<'a>>,
}

impl<'a> Gateway<'a> {
    /// Puts the device on, if it is ftwall; other devices stay off.
    pub(crate) fn start(
        lab: &'a Lab,
        device: Device,
        program: &'a Path,
        place: &'a Place,
        watched: &'a Watched,
    ) -> anyhow::Result<Self> {
        let node = lab.node("gw");
        let daemon = (device == Device::Ftwall)
            .then(|| Daemon::start(node, program, place, watched))
            .transpose()?;
        Ok(Self {
            lab,
            node,
            outside: lab.node("out"),
            address: Office::GATEWAY_WAN,
            daemon,
        })
    }

    /// Does something to it and waits until it is whole again; `outage` is how long that takes where
    /// nothing else decides.
    pub(crate) fn suffer(&mut self, fault: Fault, outage: Duration) -> anyhow::Result<Incident> {
        let at_us = epoch_us();
        let effect = match fault {
            Fault::Kill => self.daemon()?.die_for(outage),
            Fault::Stop => self.daemon()?.stop_for(outage),
            Fault::HandOver => self.daemon()?.hand_over(),
            Fault::Reload => self.daemon()?.reload(),
            Fault::Flush => self.daemon()?.lose_rules(&damage::flush),
            Fault::ReloadOften => self.daemon()?.reload_often(),
            Fault::StoreRestart => self.daemon()?.die_for(outage),
            Fault::TableDeleted => self.daemon()?.lose_rules(&damage::delete_table),
            Fault::ChainDeleted => self.daemon()?.lose_rules(&damage::delete_chain),
            Fault::RuleAltered => self.daemon()?.lose_rules(&damage::insert_rule),
            Fault::IptablesRewritten => self.daemon()?.lose_iptables(),
            Fault::SecondDaemon => self.daemon()?.refuse_others(),
            Fault::DiskFull => self.daemon()?.fill_disk_for(outage),
            Fault::StateUnwritable => self.daemon()?.lose_disk_for(outage),
            Fault::Descriptors => self.daemon()?.run_out_of_descriptors_for(outage),
            Fault::Memory => {
                let flood = self.flood(MANY_HOSTS, PINGS_EACH)?;
                self.daemon()?.run_out_of_memory_for(outage, &flood)
            }
            Fault::QueueFull => {
                let flood = self.flood(FLOODERS, AT_ONCE)?;
                self.daemon()?.overflow(&flood)
            }
            Fault::BufferOverrun => {
                let flood = self.flood(FLOODERS, AT_ONCE)?;
                self.daemon()?.overrun(&flood)
            }
            Fault::WorkerStuck => self.daemon()?.hold_worker_for(outage),
            Fault::ClockJump => self.daemon()?.set_clock(outage),
            Fault::LinkFlap => self.flap(outage),
            Fault::NewAddress => self.move_outside(),
            Fault::InterfaceRenamed => self.rename_line(),
            Fault::VerdictFlushed => self.flush_verdicts(outage),
            Fault::ConntrackFull => self.fill_connections(),
        };
        let said = || self.daemon.as_ref().map(Daemon::status).unwrap_or_default();
        let effect = effect.with_context(said);
        let effect = effect.with_context(|| fault.name())?;
        Ok(Incident::new(fault, at_us, effect))
    }

    fn daemon(&mut self) -> anyhow::Result<&mut Daemon<'a>> {
        let daemon = self.daemon.as_mut();
        daemon.context("there is no daemon to do something to")
    }

    /// Waits until the device, if there is one, says that nothing is wrong with it.
    pub(crate) fn await_health(&self) -> anyhow::Result<()> {
        self.daemon.as_ref().map_or(Ok(()), Daemon::await_health)
    }

    fn flood(&self, hosts: u8, pings: u16) -> anyhow::Result<Flood> {
        Flood::prepare(self.lab.node(FLOODING), hosts, pings)
    }

    /// What waits for an interface goes with it; whoever answers then is told that there is no such packet.
    fn flush_verdicts(&mut self, outage: Duration) -> anyhow::Result<Effect> {
        let Some(daemon) = &mut self.daemon else {
            return self.flap(outage);
        };
        let gone = |daemon: &Daemon<'_>| daemon.counted(&[PACKETS_GONE]);
        let before = gone(daemon)?;
        daemon.pause()?;
        sleep_until(now() + GATHERING);
        ip(self.node, "link set wan0 down")?;
        daemon.go_on()?;
        let until = now() + outage;
        daemon.await_counted(&[PACKETS_GONE], before)?;
        let counted = gone(daemon)? - before;
        sleep_until(until);
        ip(self.node, "link set wan0 up")?;
        self.restore_route()?;
        let noted = format!("{counted} verdicts came for packets that were gone, and were counted");
        Ok(Effect::ceased().noting(noted))
    }

    fn rename_line(&self) -> anyhow::Result<Effect> {
        ip(self.node, "link set wan0 down")?;
        ip(self.node, "link set wan0 name uplink")?;
        ip(self.node, "link set uplink up")?;
        self.restore_route()?;
        Ok(Effect::ceased())
    }

    fn fill_connections(&self) -> anyhow::Result<Effect> {
        let counted = connections::fill(self.lab.node(FLOODING), self.node)?;
        Ok(Effect::ceased().noting(counted))
    }

    fn flap(&self, outage: Duration) -> anyhow::Result<Effect> {
        let until = now() + outage;
        ip(self.node, "link set wan0 down")?;
        sleep_until(until);
        ip(self.node, "link set wan0 up")?;
        self.restore_route()?;
        Ok(Effect::ceased())
    }

    fn move_outside(&mut self) -> anyhow::Result<Effect> {
        let next = match self.address {
            Office::GATEWAY_WAN => OTHER_WAN,
            _ => Office::GATEWAY_WAN,
        };
        ip(
            self.node,
            &format!("address del {}/24 dev wan0", self.address),
        )?;
        ip(self.node, &format!("address add {next}/24 dev wan0"))?;
        self.address = next;
        self.restore_route()?;
        let back = format!("route replace {} via {next}", Office::LAN);
        ip(self.outside, &back)?;
        Ok(Effect::ceased())
    }

    /// The kernel forgets routes over a line that goes down.
    fn restore_route(&self) -> anyhow::Result<()> {
        ip(
            self.node,
            &format!("route replace default via {}", Office::OUTSIDE),
        )
    }

    /// Takes the device off; returns the daemons' log, and what was wrong with them, as sentences.
    pub(crate) fn stop(self) -> anyhow::Result<(String, Vec<String>)> {
        let Some(daemon) = self.daemon else {
            return Ok(Default::default());
        };
        let (log, mut complaints) = daemon.stop()?;
        let rules = run(self.node, "nft", "list ruleset")?;
        if rules.to_lowercase().contains("ftwall") {
            complaints.push("ftwall left rules behind".to_owned());
        }
        Ok((log, complaints))
    }
}
