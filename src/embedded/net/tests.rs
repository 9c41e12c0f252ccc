//! The driver around a machine made for the purpose: it sends back each line, doubled on a timer.

use std::collections::{BTreeMap, BTreeSet};

use tokio::io::DuplexStream;
use tokio::net::TcpStream;

use super::*;
use crate::embedded::machine::take_frame;

/// Echoes lines. `quit` closes, `cut` resets, `wait` holds its answer (and all input) for an hour. It says how much of
/// its output was pulled.
#[derive(Debug, Default)]
struct Echo {
    peers: BTreeMap<ConnectionId, Peer>,
    woken: VecDeque<ConnectionId>,
    waiting: BTreeMap<Instant, ConnectionId>,
    closed: BTreeSet<ConnectionId>,
    refusing: bool,
    pulled: usize,
}

#[derive(Debug, Default)]
struct Peer {
    output: VecDeque<Bytes>,
    end: Option<Output>,
    waits: bool,
}

impl Machine for Echo {
    fn accepts(&self, _: NodeId) -> bool {
        !self.refusing
    }
    fn handle_open(&mut self, connection: ConnectionId, _: NodeId, _: SocketAddr, _: Instant) {
        self.peers.insert(connection, Peer::default());
    }
    fn handle_input(&mut self, connection: ConnectionId, input: &mut BytesMut, now: Instant) -> Need {
        let Some(peer) = self.peers.get_mut(&connection) else { return Need::default() };
        while !peer.waits {
            let Some(end) = input.iter().position(|b| *b == b'\n') else {
                return Need::default();
            };
            let line = take_frame(input, end + 1);
            match &line[..] {
                b"quit\n" => peer.end = Some(Output::Close),
                b"cut\n" => peer.end = Some(Output::Reset),
                b"flood\n" => peer.output.extend(vec![Bytes::from(vec![b'x'; 64 * 1024]); 64]),
                b"wait\n" => {
                    self.waiting.insert(now + Duration::from_secs(3600), connection);
                    peer.waits = true;
                }
                _ => peer.output.push_back(line),
            }
            self.woken.push_back(connection);
        }
        Need { reserve: 0, paused: true }
    }
    fn handle_close(&mut self, connection: ConnectionId, _: Instant) {
        self.peers.remove(&connection);
        self.closed.insert(connection);
    }
    fn handle_timeout(&mut self, now: Instant) {
        while let Some(due) = self.waiting.first_entry().filter(|due| *due.key() <= now) {
            let connection = due.remove();
            if let Some(peer) = self.peers.get_mut(&connection) {
                peer.waits = false;
                peer.output.push_back(Bytes::from_static(b"waited\n"));
                self.woken.push_back(connection);
            }
        }
    }
    fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.keys().next().copied()
    }
    fn poll_wake(&mut self) -> Option<ConnectionId> {
        self.woken.pop_front()
    }
    fn is_cut(&self, connection: ConnectionId) -> bool {
        self.peers.get(&connection).is_none_or(|peer| peer.end == Some(Output::Reset))
    }
    fn poll_output(&mut self, connection: ConnectionId) -> Output {
        let Some(peer) = self.peers.get_mut(&connection) else { return Output::Reset };
        match peer.output.pop_front() {
            Some(bytes) => {
                self.pulled += bytes.len();
                Output::Bytes(bytes)
            }
            None => peer.end.clone().unwrap_or(Output::Pending),
        }
    }
}

const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

fn connect(driver: &Driver<Echo>) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(4096);
    tokio::spawn(driver.serve(theirs, NodeId(1), PEER));
    ours
}

async fn line(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = Vec::new();
    while text.last() != Some(&b'\n') {
        match stream.read_u8().await {
            Ok(byte) => text.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test(start_paused = true)]
async fn input_goes_in_by_frames_and_output_comes_back_in_order() {
    let driver = Driver::new(Echo::default());
    let mut stream = connect(&driver);
    stream.write_all(b"on").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    stream.write_all(b"e\ntwo\nthr").await.unwrap();
    assert_eq!(line(&mut stream).await, "one\n");
    assert_eq!(line(&mut stream).await, "two\n");
    stream.write_all(b"ee\nquit\n").await.unwrap();
    assert_eq!(line(&mut stream).await, "three\n");
    assert_eq!(line(&mut stream).await, "", "closed after all was sent");
    tokio::task::yield_now().await;
    assert_eq!(driver.with(|echo, _| echo.closed.len()), 1);
}

#[tokio::test(start_paused = true)]
async fn a_paused_connection_goes_on_when_the_timer_fires() {
    let driver = Driver::new(Echo::default());
    let mut stream = connect(&driver);
    let began = tokio::time::Instant::now();
    stream.write_all(b"wait\nafter\n").await.unwrap();
    assert_eq!(line(&mut stream).await, "waited\n");
    assert_eq!(line(&mut stream).await, "after\n");
    assert_eq!(began.elapsed().as_secs(), 3600);
}

#[tokio::test(start_paused = true)]
async fn time_advanced_by_hand_fires_what_falls_due_on_the_way() {
    let driver = Driver::new(Echo::default());
    let mut stream = connect(&driver);
    let began = tokio::time::Instant::now();
    stream.write_all(b"wait\n").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    driver.advance(Duration::from_secs(3598));
    assert!(driver.with(|echo, _| echo.poll_timeout().is_some()), "one second is missing");
    driver.advance(Duration::from_secs(2));
    assert_eq!(line(&mut stream).await, "waited\n");
    assert_eq!(began.elapsed().as_secs(), 1);
    // What is set afterwards counts from the advanced time.
    stream.write_all(b"wait\n").await.unwrap();
    assert_eq!(line(&mut stream).await, "waited\n");
    assert_eq!(began.elapsed().as_secs(), 3601);
}

#[tokio::test(start_paused = true)]
async fn output_is_pulled_only_as_fast_as_the_peer_reads() {
    let driver = Driver::new(Echo::default());
    let mut stream = connect(&driver);
    stream.write_all(b"flood\n").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let pulled = driver.with(|echo, _| echo.pulled);
    assert!((WRITE_AHEAD..WRITE_AHEAD + 128 * 1024).contains(&pulled), "{pulled} bytes pulled");
    let mut all = vec![0; 64 * 64 * 1024];
    stream.read_exact(&mut all).await.unwrap();
    assert!(all.iter().all(|b| *b == b'x'));
    // It still takes input while a peer does not read.
    stream.write_all(b"flood\nhello\nquit\n").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(driver.with(|echo, _| echo.peers.values().filter(|p| p.end.is_some()).count()), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reset_reaches_a_connection_whose_peer_does_not_read() {
    let driver = Driver::new(Echo::default());
    let mut stream = connect(&driver);
    stream.write_all(b"flood\n").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    stream.write_all(b"cut\n").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(driver.with(|echo, _| echo.closed.len()), 1);
}

#[tokio::test]
async fn a_reset_and_a_refusing_node_end_connections_at_once() {
    let driver = Driver::new(Echo::default());
    let (listener, address) = bind(0).await.unwrap();
    driver.listen(listener, NodeId(1));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"hello\n").await.unwrap();
    assert_eq!(line(&mut stream).await, "hello\n");
    stream.write_all(b"cut\n").await.unwrap();
    assert_eq!(line(&mut stream).await, "");
    driver.with(|echo, _| echo.refusing = true);
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert!(matches!(stream.read(&mut [0; 8]).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_dropped_driver_stops_listening_and_cuts_its_connections() {
    let driver = Driver::new(Echo::default());
    let (listener, address) = bind(0).await.unwrap();
    driver.listen(listener, NodeId(1));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"hello\n").await.unwrap();
    assert_eq!(line(&mut stream).await, "hello\n");
    drop(driver);
    assert_eq!(line(&mut stream).await, "");
    let again = tokio::time::timeout(Duration::from_secs(5), async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    again.await.expect("nobody listens any more");
}

#[tokio::test]
async fn traffic_is_counted() {
    let driver = Driver::new(Echo::default());
    let mut stream = connect(&driver);
    stream.write_all(b"hello\n").await.unwrap();
    assert_eq!(line(&mut stream).await, "hello\n");
    let Traffic { connections, open, bytes_in, bytes_out } = driver.traffic();
    assert_eq!((connections, open, bytes_in, bytes_out), (1, 1, 6, 6));
    drop(stream);
    while driver.traffic().open > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(driver.traffic().connections, 1);
}
