//! Between accepting a connection and its first request: who is it, may it come in, and in which language.
//!
//! Invariants: the PROXY header comes before anything else, also before TLS, and from trusted proxies alone; one address
//! has a bounded number of connections, counted by who is behind the proxy. Everything here is bounded in time.
//!
//! On failure: the connection is closed without a word, and counted by its reason.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use pingora_proxy::HttpProxy;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::Closing;
use crate::client::preamble::{self, PREAMBLE_MAX, Parsed};
use crate::client::{self, Crowd};
use crate::config::ProxyProtocol;
use crate::connection::Connection;
use crate::downstream::Downstream;
use crate::service::Service;
use crate::tls::Tls;
use crate::transport::Transport;

/// A balancer sends its header with the connection's first packet.
const PREAMBLE_TIME: Duration = Duration::from_secs(5);

/// What every new connection needs.
pub(super) struct Porter {
    pub(super) proxy: Arc<HttpProxy<Service>>,
    pub(super) service: Service,
    pub(super) closing: Arc<Closing>,
    pub(super) crowd: Arc<Crowd>,
    pub(super) tls: Option<Arc<Tls>>,
}

impl Porter {
    /// Serves a connection to its end.
    pub(super) async fn receive(&self, mut tcp: TcpStream, peer: SocketAddr) {
        let shared = self.service.shared();
        let config = &shared.config.client;
        let (mut client, mut early) = (peer, BytesMut::new());
        if config.proxy_protocol != ProxyProtocol::Off && client::is_trusted(config, peer.ip().to_canonical()) {
            match Box::pin(named(&mut tcp, peer, config.proxy_protocol)).await {
                Ok(found) => (client, early) = found,
                Err(reason) => return shared.metrics.door.refused(reason),
            }
        }
        // A trusted proxy stands for many clients, of whom only their requests tell.
        let is_proxy = client::is_trusted(config, client.ip().to_canonical());
        let place = if is_proxy { None } else { self.crowd.enter(client.ip()) };
        if place.is_none() && !is_proxy {
            return shared.metrics.door.refused("address");
        }
        let transport = match &self.tls {
            None => Transport::Plain(tcp),
            Some(tls) => match Box::pin(tls.accept(tcp, std::mem::take(&mut early))).await {
                Ok(stream) => Transport::Tls(Box::new(stream)),
                Err(_counted) => return,
            },
        };
        let stream = Downstream::new(transport, client, &shared.config.connections, Arc::clone(&shared.metrics));
        let mut stream = Box::new(stream);
        if !early.is_empty() {
            stream.put_unread(early);
        }
        let (proxy, closing) = (Arc::clone(&self.proxy), Arc::clone(&self.closing));
        Connection { proxy, service: self.service.clone(), closing }.serve(stream).await;
        drop(place);
    }
}

/// Reads the PROXY header: whom it names, and what came behind it.
///
/// # Errors
/// The reason word.
async fn named(
    tcp: &mut TcpStream,
    peer: SocketAddr,
    expected: ProxyProtocol,
) -> Result<(SocketAddr, BytesMut), &'static str> {
    let read = async {
        let mut bytes = BytesMut::new();
        loop {
            match preamble::parse(&bytes, expected) {
                Parsed::Whole { length, client } => {
                    let early = bytes.split_off(length);
                    return Ok((client.map_or(peer, |client| SocketAddr::new(client, peer.port())), early));
                }
                Parsed::Partial if bytes.len() < PREAMBLE_MAX => {}
                Parsed::Partial | Parsed::Wrong => return Err("proxy-header"),
            }
            bytes.reserve(PREAMBLE_MAX - bytes.len());
            match tcp.read_buf(&mut bytes).await {
                Ok(read) if read > 0 => {}
                // A balancer's own look whether anybody is there.
                _ => return Err("gone"),
            }
        }
    };
    tokio::time::timeout(PREAMBLE_TIME, read).await.unwrap_or(Err("proxy-header-timeout"))
}
