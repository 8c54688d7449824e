use super::*;
use std::fs::File;

fn pair() -> (UnixStream, UnixStream) {
    UnixStream::pair().expect("the system gives sockets")
}

fn descriptors(count: usize) -> Vec<OwnedFd> {
    let file = File::open("/dev/null").expect("there");
    (0..count).map(|_| file.try_clone().expect("few").into()).collect()
}

#[tokio::test]
async fn descriptors_arrive_at_a_batch_and_one_past_it_and_bytes_behind_them_stay() {
    for count in [1, 64, 65, 129] {
        let (mut from, mut to) = pair();
        let sent = descriptors(count);
        let (sending, received) =
            tokio::join!(descriptors::send(&from, &sent), descriptors::receive(&to, count));
        sending.expect("sent");
        assert_eq!(received.expect("received").len(), count);
        from.write_u8(READY).await.expect("sent");
        assert_eq!(to.read_u8().await.expect("received"), READY);
    }
}

#[tokio::test]
async fn fewer_descriptors_than_announced_and_more_are_an_end() {
    for (sent, announced) in [(2, 3), (4, 3)] {
        let (from, to) = pair();
        descriptors::send(&from, &descriptors(sent)).await.expect("sent");
        drop(from);
        assert!(descriptors::receive(&to, announced).await.is_err(), "{sent} of {announced}");
    }
}

#[tokio::test]
async fn a_message_at_its_limit_is_read_and_one_past_it_is_not() {
    for (bytes, is_read) in [(MESSAGE_BYTES_MAX, true), (MESSAGE_BYTES_MAX + 1, false)] {
        let (mut from, mut to) = pair();
        let message = Value::String("x".repeat(bytes - 2));
        let (_, heard) = tokio::join!(say(&mut from, &message), async {
            let heard = hear(&mut to).await;
            drop(to);
            heard
        });
        assert_eq!(heard.is_ok(), is_read, "{bytes} bytes");
    }
}

/// A process at `path` that answers one hello with this.
fn answering(path: &Path, offer: Value) -> tokio::task::JoinHandle<()> {
    let door = Door::open(path).expect("a free path");
    tokio::spawn(async move {
        let (mut stream, _) = door.listener.accept().await.expect("asked");
        hear(&mut stream).await.expect("hello");
        say(&mut stream, &offer).await.expect("heard");
    })
}

#[tokio::test]
async fn as_many_sockets_as_may_be_are_waited_for_and_one_more_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for (sockets, reads) in [(SOCKETS_MAX, true), (SOCKETS_MAX + 1, false)] {
        let path = folder.path().join(sockets.to_string());
        let other = answering(&path, json!({ "sockets": sockets, "pools": [] }));
        let asked = Predecessor::ask(&path).await.expect_err("none come");
        assert_eq!(matches!(asked, TakeoverError::Broken(_)), reads, "{asked}");
        other.await.expect("no panic");
    }
}

#[tokio::test]
async fn a_process_of_another_version_is_told_so_and_the_next_one_is_heard() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let door = Door::open(&path).expect("a free path");
    let mode = fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "its owner's alone");
    let (status, admin) = (Status::default(), TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let lend = || async { Estate { listeners: Vec::new(), admin: &admin } };
    let serving = door.successor(&status, lend);
    let asking = async {
        let mut stream = UnixStream::connect(&path).await.expect("listens");
        say(&mut stream, &json!({ "protocol": PROTOCOL + 1 })).await.expect("sent");
        let refusal = hear(&mut stream).await.expect("an answer");
        assert!(refusal["refused"].as_str().is_some_and(|reason| reason.contains("version 1")), "{refusal}");
        let predecessor = Predecessor::ask(&path).await.expect("heard").expect("somebody serves");
        assert!(predecessor.admin.is_some() && predecessor.listeners.is_empty());
        let readiness = Readiness::default();
        readiness.ready();
        predecessor.replace(&readiness, &Status::default()).await
    };
    let (_, replaced) = tokio::join!(async { serving.await.begin().await }, asking);
    replaced.expect("all pools serve: there are none");
}

#[tokio::test]
async fn a_process_that_ends_in_the_middle_leaves_the_other_one_its_sockets() {
    let (ours, theirs) = pair();
    let predecessor =
        Predecessor { stream: ours, pools: BTreeSet::new(), listeners: Vec::new(), admin: None };
    drop(theirs);
    predecessor.replace(&Readiness::default(), &Status::default()).await.expect("it goes on alone");
}

#[tokio::test(start_paused = true)]
async fn readiness_and_pools_are_waited_for_within_their_limits() {
    let pools = BTreeSet::from(["default/a".to_owned(), "default/b".to_owned()]);
    let (status, readiness) = (Status::default(), Readiness::default());
    let began = Instant::now();
    let unready = prepare(&pools, &readiness, &status).await.expect_err("not ready");
    assert!(matches!(unready, TakeoverError::NotReady));
    assert_eq!(began.elapsed(), READY_LIMIT);
    readiness.ready();
    let began = Instant::now();
    let missing = prepare(&pools, &readiness, &status).await.expect_err("not served");
    assert!(missing.to_string().contains("default/a and 1 more"), "{missing}");
    assert!(began.elapsed() >= POOLS_LIMIT && began.elapsed() < POOLS_LIMIT * 2);
    prepare(&BTreeSet::new(), &readiness, &status).await.expect("nothing is missing");
}
