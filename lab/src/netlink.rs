//! Links, addresses, routes and neighbours by rtnetlink; the one file that names the crate.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsFd, AsRawFd},
};

use futures_util::TryStreamExt;
use ipnet::Ipv4Net;
use rtnetlink::{
    Error, Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        link::{InfoData, InfoVeth},
        route::{RouteMessage, RouteScope, RouteType},
    },
};
use tokio::task::JoinHandle;

use crate::{
    apply::LOOPBACK_INDEX,
    netns::Namespace,
    plan::{BRIDGE, BRIDGE_INDEX, Mac, Port},
};

/// A netlink socket inside one namespace.
pub(crate) struct Netlink {
    handle: Handle,
    driver: JoinHandle<()>,
}

impl Netlink {
    /// Opens a socket in the namespace of the calling thread, where it stays when the thread moves on.
    pub(crate) fn in_current_namespace() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self {
            handle,
            driver: tokio::spawn(connection),
        })
    }

    /// Creates the bridge of a switch, up.
    pub(crate) async fn add_bridge(&self) -> io::Result<()> {
        let bridge = LinkBridge::new(BRIDGE).index(BRIDGE_INDEX).up().build();
        self.handle
            .link()
            .add(bridge)
            .execute()
            .await
            .map_err(into_io)
    }

    /// Creates a veth pair: `near` here and up, `far` inside the namespace it belongs to. Creating and
    /// then moving it would cost ten times as much.
    pub(crate) async fn add_link(
        &self,
        near: &Port,
        far: &Port,
        far_namespace: &Namespace,
    ) -> io::Result<()> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(far.interface.clone())
            .index(far.index)
            .address(far.mac.0.to_vec())
            .setns_by_fd(far_namespace.as_fd().as_raw_fd())
            .build();
        let mut link = LinkVeth::new(&near.interface, &far.interface)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .index(near.index)
            .address(near.mac.0.to_vec())
            .up();
        if near.bridged {
            link = link.controller(BRIDGE_INDEX);
        }
        self.handle
            .link()
            .add(link.build())
            .execute()
            .await
            .map_err(into_io)
    }

    /// Sets a link up.
    pub(crate) async fn raise(&self, index: u32) -> io::Result<()> {
        let link = LinkUnspec::new_with_index(index).up().build();
        self.handle
            .link()
            .set(link)
            .execute()
            .await
            .map_err(into_io)
    }

    /// Returns once the kernel lets a link that is up send. Carrier changes are worked off later, and
    /// until then frames vanish; answering a question about one link, the kernel works off its
    /// changes first (`linkwatch_sync_dev` in `rtnl_getlink`, net/core/rtnetlink.c).
    pub(crate) async fn settle(&self, index: u32) -> io::Result<()> {
        let mut answers = self.handle.link().get().match_index(index).execute();
        while answers.try_next().await.map_err(into_io)?.is_some() {}
        Ok(())
    }

    /// Adds an address; the kernel adds the route to its network.
    pub(crate) async fn add_address(&self, index: u32, address: Ipv4Net) -> io::Result<()> {
        let request = self
            .handle
            .address()
            .add(index, address.addr().into(), address.prefix_len());
        request.execute().await.map_err(into_io)
    }

    /// Adds a route by a next hop.
    pub(crate) async fn add_route(&self, to: Ipv4Net, via: Ipv4Addr) -> io::Result<()> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to.network(), to.prefix_len())
            .gateway(via)
            .build();
        self.send_route(route).await
    }

    async fn send_route(&self, route: RouteMessage) -> io::Result<()> {
        self.handle
            .route()
            .add(route)
            .execute()
            .await
            .map_err(into_io)
    }

    /// Adds a local route on the loopback: every address of `net` is the namespace's own.
    pub(crate) async fn own(&self, net: Ipv4Net) -> io::Result<()> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(net.network(), net.prefix_len())
            .output_interface(LOOPBACK_INDEX)
            .table_id(RT_TABLE_LOCAL)
            .scope(RouteScope::Host)
            .kind(RouteType::Local)
            .build();
        self.send_route(route).await
    }

    /// Adds a neighbour entry that never expires.
    pub(crate) async fn add_neighbour(
        &self,
        index: u32,
        address: Ipv4Addr,
        mac: Mac,
    ) -> io::Result<()> {
        let request = self
            .handle
            .neighbours()
            .add(index, address.into())
            .link_layer_address(&mac.0);
        request.execute().await.map_err(into_io)
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// rtnetlink(7): the table of addresses that are the host's own.
const RT_TABLE_LOCAL: u32 = 255;

fn into_io(error: Error) -> io::Error {
    match error {
        Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}
