//! The TCP connections of this process, whoever opened them.
//!
//! Invariant: what is handed out is a duplicate, so the descriptor that it was made from stays its owner's.

use std::fs;
use std::mem::ManuallyDrop;
use std::net::TcpStream;
use std::os::fd::{FromRawFd, RawFd};
use std::path::Path;

/// A duplicate of every connected TCP socket that is open now; none where `/proc` is not mounted.
#[must_use]
pub fn tcp_connections() -> Vec<TcpStream> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return Vec::new() };
    entries.flatten().filter_map(|entry| duplicate(&entry.path())).filter(is_connected).collect()
}

fn duplicate(entry: &Path) -> Option<TcpStream> {
    let number = entry.file_name()?.to_str()?.parse::<RawFd>().ok()?;
    let target = fs::read_link(entry).ok()?;
    if !target.to_string_lossy().starts_with("socket:") {
        return None;
    }
    // SAFETY: the number is asked for a duplicate and no more: `ManuallyDrop` never closes it. If its owner closed it
    // since, the duplicate fails, or is of what was opened under this number, which `is_connected` then looks at.
    let borrowed = ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(number) });
    borrowed.try_clone().ok()
}

/// The standard library refuses the addresses of sockets other than TCP's and UDP's.
fn is_connected(socket: &TcpStream) -> bool {
    socket.local_addr().is_ok() && socket.peer_addr().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener};

    #[test]
    fn a_duplicate_is_the_same_connection_and_closes_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let own = near.local_addr().unwrap();
        let of_near = |sockets: Vec<TcpStream>| sockets.into_iter().find(|s| s.local_addr().unwrap() == own);
        drop(of_near(tcp_connections()).expect("it is open"));
        near.write_all(b"x").unwrap();
        let mut byte = [0];
        far.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x", "the original is open after its duplicate has gone");
        of_near(tcp_connections()).unwrap().shutdown(Shutdown::Both).unwrap();
        assert_eq!(far.read(&mut byte).unwrap(), 0, "shutting down a duplicate ends the connection");
    }
}
