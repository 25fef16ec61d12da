//! Waiting for a connection to close, beside whoever reads and writes it.
//!
//! Invariant: no byte is taken from a connection; data is gloo's business. An order to stop goes before a loss.

use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};

/// Blocks until one of the connections has lost its other end, and says whose that was; `None` once the other end of
/// `stop` is gone, or where the system cannot wait.
pub(crate) fn first_closed(connections: &[(u32, TcpStream)], stop: &UnixStream) -> Option<u32> {
    let mut all = vec![PollFd::new(stop, PollFlags::IN | PollFlags::RDHUP)];
    all.extend(connections.iter().map(|(_, socket)| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::RDHUP)));
    wait(&mut all, None).ok()?;
    let woken = |fd: &PollFd<'_>| !fd.revents().is_empty();
    let (stopped, peers) = all.split_first()?;
    if woken(stopped) {
        return None;
    }
    connections.iter().zip(peers).find(|(_, fd)| woken(fd)).map(|((rank, _), _)| *rank)
}

/// Whether nothing came from `stop` for this long.
pub(crate) fn is_quiet(stop: &UnixStream, this_long: Timespec) -> bool {
    wait(&mut [PollFd::new(stop, PollFlags::IN | PollFlags::RDHUP)], Some(&this_long)) == Ok(0)
}

/// How many are ready; a signal's interruption is no answer.
fn wait(all: &mut [PollFd<'_>], timeout: Option<&Timespec>) -> Result<usize, Errno> {
    retry_on_intr(|| poll(all, timeout))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    const MOMENT: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn a_closed_connection_is_told_by_its_rank_and_data_is_not_taken_for_it() {
        let ((three, mut far_three), (seven, far_seven)) = (connection(), connection());
        let (stop, stopped) = UnixStream::pair().unwrap();
        far_three.write_all(b"data").unwrap();
        drop(far_seven);
        assert_eq!(first_closed(&[(3, three), (7, seven)], &stopped), Some(7));
        assert!(is_quiet(&stopped, MOMENT));
        drop(stop);
    }

    #[test]
    fn an_order_to_stop_goes_before_a_loss() {
        let (near, far) = connection();
        let (stop, stopped) = UnixStream::pair().unwrap();
        drop((far, stop));
        assert_eq!(first_closed(&[(1, near)], &stopped), None);
        assert!(!is_quiet(&stopped, MOMENT));
    }
}
