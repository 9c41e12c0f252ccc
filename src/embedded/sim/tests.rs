use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

async fn pair(network: &Network) -> (Stream, Stream) {
    let mut listener = network.listen("server", 1);
    let far = async { listener.accept().await.unwrap().accept().unwrap().0 };
    let (near, far) = tokio::join!(connect(&network.0, "client", "server", 1), far);
    (near.unwrap(), far)
}

#[tokio::test(start_paused = true)]
async fn bytes_arrive_in_order_after_the_latency() {
    let network = Network::new(1);
    let second = Duration::from_secs(1);
    network.set_default_quality(Quality { least: second, most: 3 * second, bandwidth: 0 });
    let (mut near, mut far) = pair(&network).await;
    let begin = Instant::now();
    for i in 0..50u8 {
        near.write_all(&[i]).await.unwrap();
    }
    let mut got = [0; 50];
    far.read_exact(&mut got).await.unwrap();
    assert!(got.iter().copied().eq(0..50));
    let took = begin.elapsed();
    assert!((second..4 * second).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_narrow_way_takes_its_time_and_the_other_does_not() {
    let network = Network::new(1);
    network.set_quality("client", "server", Quality { bandwidth: 1000, ..Quality::default() });
    let (mut near, mut far) = pair(&network).await;
    let begin = Instant::now();
    let mut got = vec![0; 5000];
    let (sent, read) = tokio::join!(near.write_all(&[7; 5000]), far.read_exact(&mut got));
    sent.unwrap();
    read.unwrap();
    assert!((4900..5200).contains(&begin.elapsed().as_millis()), "{:?}", begin.elapsed());
    let begin = Instant::now();
    far.write_all(&got).await.unwrap();
    near.read_exact(&mut got).await.unwrap();
    assert!(begin.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_blocked_way_holds_what_is_sent_until_it_is_free() {
    let network = Network::new(1);
    let (mut near, mut far) = pair(&network).await;
    network.block("client", "server");
    near.write_all(b"late").await.unwrap();
    far.write_all(b"soon").await.unwrap();
    let mut got = [0; 4];
    near.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"soon");
    let wait = Duration::from_secs(3600);
    assert!(tokio::time::timeout(wait, far.read_exact(&mut got)).await.is_err());
    assert!(tokio::time::timeout(wait, connect(&network.0, "client", "server", 1)).await.is_err());
    network.unblock("client", "server");
    far.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"late");
}

#[tokio::test(start_paused = true)]
async fn a_cut_at_a_byte_lets_exactly_these_arrive() {
    let network = Network::new(1);
    let (mut near, mut far) = pair(&network).await;
    near.write_all(b"before").await.unwrap();
    assert_eq!(network.cut_after("client", "server", 3), 1);
    near.write_all(b"abcdef").await.unwrap_err();
    let mut got = Vec::new();
    let end = far.read_to_end(&mut got).await.unwrap_err();
    assert_eq!((&got[..], end.kind()), (&b"beforeabc"[..], std::io::ErrorKind::ConnectionReset));
    assert_eq!(near.read_u8().await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn a_cut_loses_what_is_under_way_and_wakes_both_sides() {
    let network = Network::new(1);
    let (mut near, mut far) = pair(&network).await;
    near.write_all(b"lost").await.unwrap();
    let cut = async {
        tokio::task::yield_now().await;
        assert_eq!(network.cut("server"), 1);
    };
    let (a, b, ()) = tokio::join!(near.read_u8(), far.read_u8(), cut);
    assert!(a.is_err() && b.is_err());
    assert_eq!(network.cut("server"), 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_before_the_end_is_read_and_then_the_end() {
    let network = Network::new(1);
    let (mut near, mut far) = pair(&network).await;
    near.write_all(b"last").await.unwrap();
    drop(near);
    // The other side cannot know yet.
    far.write_all(b"x").await.unwrap();
    let mut got = Vec::new();
    far.read_to_end(&mut got).await.unwrap();
    assert_eq!(&got, b"last");
    assert_eq!(far.write_all(b"y").await.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    drop(far);
    assert_eq!(network.0.lock().open(), 0);
}

#[tokio::test(start_paused = true)]
async fn nobody_there_and_nobody_willing_are_refused() {
    let network = Network::new(1);
    let refused = connect(&network.0, "client", "server", 1).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let mut listener = network.listen("server", 1);
    let refuse = async { drop(listener.accept().await) };
    let (refused, ()) = tokio::join!(connect(&network.0, "client", "server", 1), refuse);
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn a_writer_waits_for_a_reader_that_does_not_read() {
    let network = Network::new(1);
    let (mut near, mut far) = pair(&network).await;
    let body: Vec<u8> = (0..4 * state::WINDOW).map(|i| i as u8).collect();
    let wait = Duration::from_secs(60);
    let mut write = Box::pin(near.write_all(&body));
    assert!(tokio::time::timeout(wait, write.as_mut()).await.is_err());
    let mut got = vec![0; body.len()];
    let (sent, read) = tokio::join!(write, far.read_exact(&mut got));
    sent.unwrap();
    read.unwrap();
    assert!(got == body);
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_does_not() {
    let run = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let network = Network::new(seed);
            let (mut near, mut far) = pair(&network).await;
            for i in 0..20u8 {
                near.write_all(&[i; 100]).await.unwrap();
                let mut got = [0; 100];
                far.read_exact(&mut got).await.unwrap();
            }
            (network.trace(), network.elapsed())
        })
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3).0, run(4).0);
}
