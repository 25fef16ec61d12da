//! Gloo's TCP connections as this process sees them: whose they are.
//!
//! Gloo has no abort (pytorch/pytorch#130345): an operation ends only when a connection breaks or its timeout comes; and
//! where a connection breaks just before a send, not even then. So the group keeps a duplicate of each connection, by
//! rank, to watch and to shut down (see [`crate::live`]).
//!
//! Invariant: a socket is taken only if one of its ends is a listening address of this group's members; those addresses
//! are what gloo itself wrote to the store while the group was formed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pixfleet_shim::sockets::tcp_connections;

/// The addresses of the group's members, as (rank, address).
pub(crate) struct Addresses {
    rank: u32,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Where members listen: a connection has one of these at one end.
    listening: Vec<(u32, SocketAddr)>,
    /// The other ends of connections that this rank accepted: gloo names those in its messages.
    connecting: Vec<(u32, SocketAddr)>,
}

impl Addresses {
    pub(crate) fn new(rank: u32) -> Self {
        Self { rank, known: Mutex::default() }
    }

    /// Looks at what gloo writes to the store or reads from it: under `<context>/<rank>` lies a member's address.
    pub(crate) fn note(&self, key: &str, value: &[u8]) {
        let rank = key.rsplit_once('/').and_then(|(_, rank)| rank.parse().ok());
        if let (Some(rank), Some(address)) = (rank, address_in(value)) {
            let listening = &mut self.lock().listening;
            if !listening.contains(&(rank, address)) {
                listening.push((rank, address));
            }
        }
    }

    /// The rank behind an address that `text` names, as in "Connection closed by peer [127.0.0.1]:41234".
    pub(crate) fn rank_of(&self, text: &str) -> Option<u32> {
        // gloo of libtorch 2.11 prints the port in network order; a later one may have mended that.
        self.rank_at(text, u16::swap_bytes).or_else(|| self.rank_at(text, |port| port))
    }

    fn rank_at(&self, text: &str, printed: fn(u16) -> u16) -> Option<u32> {
        let known = self.lock();
        let named = |address: &SocketAddr| {
            let written = format!("[{}]:{}", address.ip(), printed(address.port()));
            text.match_indices(&written)
                .any(|(at, _)| !text[at + written.len()..].starts_with(|next: char| next.is_ascii_digit()))
        };
        let mut others = known.listening.iter().chain(&known.connecting).filter(|(rank, _)| *rank != self.rank);
        others.find(|(_, address)| named(address)).map(|(rank, _)| *rank)
    }

    /// The local port of this rank's connection to each of `world` ranks; 0 where it accepted theirs. Ranks exchange
    /// these, since nothing else tells whose port it was that closed.
    pub(crate) fn own_ports(&self, world: u32) -> Vec<i64> {
        let listening = self.lock().listening.clone();
        let mut ports = vec![0; world as usize];
        for (_, local, peer) in connections_here() {
            let to = listening.iter().find(|(rank, address)| *rank != self.rank && *address == peer);
            if let Some(port) = to.and_then(|(rank, _)| ports.get_mut(*rank as usize)) {
                *port = i64::from(local.port());
            }
        }
        ports
    }

    /// Takes what rank `rank` told as its port towards this one.
    pub(crate) fn note_port(&self, rank: u32, port: i64) {
        let mut known = self.lock();
        let ip = known.listening.iter().find(|(other, _)| *other == rank).map(|(_, address)| address.ip());
        if let (Some(ip), Ok(port @ 1..)) = (ip, u16::try_from(port)) {
            known.connecting.push((rank, SocketAddr::new(ip, port)));
        }
    }

    /// Duplicates of this rank's connections, with the rank at the other end. A duplicate stays what it is, while gloo
    /// may close its own at any time and the number may then mean another socket.
    pub(crate) fn connections(&self) -> Vec<(u32, TcpStream)> {
        let known = self.lock();
        let mut found = Vec::new();
        for (socket, local, peer) in connections_here() {
            let accepted = known.listening.contains(&(self.rank, local));
            let others = if accepted { &known.connecting } else { &known.listening };
            let other = others.iter().find(|(rank, address)| *rank != self.rank && *address == peer);
            if let Some((rank, _)) = other {
                found.push((*rank, socket));
            }
        }
        found
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A duplicate of every TCP connection of this process, with its local and its peer's address.
fn connections_here() -> impl Iterator<Item = (TcpStream, SocketAddr, SocketAddr)> {
    tcp_connections().into_iter().filter_map(|socket| {
        let (local, peer) = (socket.local_addr().ok()?, socket.peer_addr().ok()?);
        Some((socket, local, peer))
    })
}

/// The listening address in a gloo rendezvous value: the host name (u64 length, bytes), then the address (u64 length,
/// a `sockaddr_storage` first), then more. All in native byte order but port and IP.
fn address_in(value: &[u8]) -> Option<SocketAddr> {
    let (host, rest) = value.split_first_chunk::<8>()?;
    let rest = rest.get(usize::try_from(u64::from_ne_bytes(*host)).ok()?..)?;
    let (length, rest) = rest.split_first_chunk::<8>()?;
    let storage = rest.get(..usize::try_from(u64::from_ne_bytes(*length)).ok()?)?;
    let (family, rest) = storage.split_first_chunk::<2>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    const AF_INET: u16 = 2;
    const AF_INET6: u16 = 10;
    let ip = match u16::from_ne_bytes(*family) {
        AF_INET => IpAddr::V4(Ipv4Addr::from(*rest.first_chunk::<4>()?)),
        AF_INET6 => IpAddr::V6(Ipv6Addr::from(*rest.get(4..)?.first_chunk::<16>()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What gloo of libtorch 2.11 wrote for rank 1 on a host named "vm".
    fn value(port: u16) -> Vec<u8> {
        let mut bytes = 2u64.to_ne_bytes().to_vec();
        bytes.extend(b"vm");
        bytes.extend(136u64.to_ne_bytes());
        bytes.extend(2u16.to_ne_bytes());
        bytes.extend(port.to_be_bytes());
        bytes.extend([127, 0, 0, 1]);
        bytes.resize(8 + 2 + 8 + 136, 0);
        bytes
    }

    #[test]
    fn the_rank_behind_an_address_is_found_by_the_whole_port() {
        let addresses = Addresses::new(0);
        addresses.note("0/0", &value(4321));
        addresses.note("0/1", &value(433));
        addresses.note("0/2", &value(4330));
        addresses.note("0/3", &value(41543));
        assert_eq!(addresses.rank_of("Connection closed by peer [127.0.0.1]:4330"), Some(2));
        assert_eq!(addresses.rank_of("Connection closed by peer [127.0.0.1]:433, and more"), Some(1));
        assert_eq!(addresses.rank_of("Connection closed by peer [127.0.0.1]:4321"), None, "that is this rank");
        assert_eq!(addresses.rank_of("Connection closed by peer [127.0.0.1]:18338"), Some(3), "as gloo prints 41543");
        assert_eq!(addresses.rank_of("Timed out"), None);
    }

    #[test]
    fn the_rank_behind_an_accepted_connection_is_known_by_its_port() {
        let addresses = Addresses::new(0);
        addresses.note("0/1", &value(433));
        addresses.note_port(1, 50_000);
        addresses.note_port(2, 50_001);
        assert_eq!(addresses.rank_of("Connection reset by peer [127.0.0.1]:50000"), Some(1));
        assert_eq!(addresses.rank_of("Connection reset by peer [127.0.0.1]:50001"), None, "its IP was never told");
    }

    #[test]
    fn other_store_values_are_no_addresses() {
        let addresses = Addresses::new(0);
        addresses.note("0/1", b"ready");
        addresses.note("0/1", &u64::MAX.to_ne_bytes());
        addresses.note("seq", &value(1));
        assert!(addresses.lock().listening.is_empty());
    }
}
