//! What happens, as clients of `GET /v1/events` read it.

#![expect(clippy::unwrap_used, reason = "a test that fails shall panic")]

use std::collections::BTreeMap;

use crate::support::House;
use banger_api::client::{Client, ClientError, Lines, Request};
use banger_api::error::ErrorCode;
use banger_api::events::{Change, Line, Outcome};
use banger_api::operation::Event;
use banger_api::vm::{Vm, VmCreate, VmState};
use bangerd::events::REMEMBERED;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

async fn follow(client: &Client, since: Option<&str>) -> Lines<Line> {
    let request = Request::get(["events"]);
    client.lines(since.into_iter().fold(request, |request, token| request.query("since", token))).await.unwrap()
}

async fn next(lines: &mut Lines<Line>) -> Line {
    lines.next().await.unwrap().expect("the stream goes on")
}

/// Does something to its end, whatever that is.
async fn does(client: &Client, request: Request) -> Result<Vm, Box<banger_api::error::ApiError>> {
    let mut events = client.operation::<Vm>(request).await.unwrap();
    loop {
        match events.next().await.unwrap().unwrap() {
            Event::Result { result, .. } => return Ok(result),
            Event::Error { error } => return Err(Box::new(error)),
            _ => {}
        }
    }
}

async fn create(client: &Client, name: &str, stopped: bool) -> Vm {
    let request = VmCreate { name: Some(name.into()), stopped, ..VmCreate::default() };
    does(client, Request::post(["vms"]).json(&request)).await.unwrap()
}

async fn remove(client: &Client, name: &str) {
    does(client, Request::delete(["vms", name]).query("force", "true")).await.unwrap();
}

/// What a client knows that follows: a reset replaces it, every other line changes one thing of it.
#[derive(Default)]
struct Follower {
    vms: BTreeMap<String, Vm>,
    token: String,
}

impl Follower {
    fn take(&mut self, line: Line) {
        let before = std::mem::replace(&mut self.token, line.token);
        match line.change {
            Change::Reset { vms, .. } => self.vms = vms.into_iter().map(|vm| (vm.id.clone(), vm)).collect(),
            Change::VmCreated { vm } => assert!(self.vms.insert(vm.id.clone(), vm).is_none(), "created twice"),
            Change::VmChanged { vm } => {
                let known = self.vms.insert(vm.id.clone(), vm.clone()).expect("a VM that changes was there");
                assert!(known.generation <= vm.generation, "{known:?} became {vm:?}");
                assert_ne!(known, vm);
            }
            Change::VmRemoved { vm } => {
                let known = self.vms.remove(&vm.id).expect("a VM that goes was there");
                assert!(known.generation <= vm.generation);
            }
            Change::Lagged => panic!("it lagged"),
            _ => {}
        }
        if let Some((run, number)) = before.split_once('-') {
            let (now_run, now) = self.token.split_once('-').unwrap();
            assert!(
                now_run == run && now.parse::<u64>().unwrap() == number.parse::<u64>().unwrap() + 1,
                "{before} {now}"
            );
        }
    }

    /// Reads until an operation of this verb has ended so often.
    async fn until(&mut self, lines: &mut Lines<Line>, verb: &str, mut times: usize) {
        while times > 0 {
            let line = next(lines).await;
            times -=
                usize::from(matches!(&line.change, Change::OperationFinished { verb: ended, .. } if ended == verb));
            self.take(line);
        }
    }

    async fn agrees(&self, client: &Client) {
        let vms: Vec<Vm> = client.call(Request::get(["vms"])).await.unwrap();
        assert_eq!(self.vms, vms.into_iter().map(|vm| (vm.id.clone(), vm)).collect());
    }
}

#[test]
fn a_vms_whole_life_is_told_in_order() {
    let house = House::new();
    let client = house.listen();
    let said = house.run(async |_| {
        let mut lines = follow(&client, None).await;
        create(&client, "one", false).await;
        let refused =
            does(&client, Request::post(["vms"]).json(&VmCreate { name: Some("one".into()), ..VmCreate::default() }));
        assert_eq!(refused.await.unwrap_err().code, ErrorCode::NameTaken);
        remove(&client, "one").await;
        let mut said = Vec::new();
        while said.last().is_none_or(|last| last != "rm Some(\"one\") ends: Done") {
            said.push(match next(&mut lines).await.change {
                Change::Reset { vms, images } => format!("reset {} {}", vms.len(), images[0].name),
                Change::VmCreated { vm } => format!("created {:?}", vm.state),
                Change::VmChanged { vm } => format!("{:?}", vm.state),
                Change::VmRemoved { vm } => format!("gone {}", vm.name),
                Change::OperationStarted { verb, on, .. } => format!("{verb} {on:?} begins"),
                Change::OperationFinished { verb, on, outcome, code: None, .. } => {
                    format!("{verb} {on:?} ends: {outcome:?}")
                }
                Change::OperationFinished { outcome: Outcome::Failed, code: Some(code), .. } => format!("{code:?}"),
                other => panic!("{other:?}"),
            });
        }
        said
    });
    let one = "Some(\"one\")";
    let mut expected = vec!["reset 0 debian".to_owned(), format!("create {one} begins"), "created Creating".into()];
    expected.extend(["Starting", "Running"].map(str::to_owned));
    expected.extend([format!("create {one} ends: Done"), format!("create {one} begins"), "NameTaken".into()]);
    expected.extend([format!("rm {one} begins"), "Removing".into(), "gone one".into(), format!("rm {one} ends: Done")]);
    assert_eq!(said, expected);
}

#[test]
fn a_client_that_was_away_gets_what_it_missed_and_nothing_twice() {
    let house = House::new();
    let client = house.listen();
    house.run(async |_| {
        let mut follower = Follower::default();
        let mut lines = follow(&client, None).await;
        follower.take(next(&mut lines).await);
        drop(lines);
        create(&client, "one", true).await;
        let mut lines = follow(&client, Some(&follower.token)).await;
        follower.until(&mut lines, "create", 1).await;
        follower.agrees(&client).await;
        // At any line: each of them is given once, whoever gets it.
        create(&client, "two", true).await;
        remove(&client, "one").await;
        loop {
            let mut lines = follow(&client, Some(&follower.token)).await;
            let line = next(&mut lines).await;
            let last = matches!(&line.change, Change::OperationFinished { verb, .. } if verb == "rm");
            follower.take(line);
            if last {
                break;
            }
        }
        follower.agrees(&client).await;
    });
}

#[test]
fn a_token_of_another_daemon_or_too_old_brings_all_that_there_is() {
    let mut house = House::new();
    let client = house.listen();
    let token = house.run(async |daemon| {
        create(&client, "one", true).await;
        let token = next(&mut follow(&client, None).await).await.token;
        let busy =
            |number: usize| Change::OperationStarted { operation: number.to_string(), verb: "test".into(), on: None };
        (0..=REMEMBERED).for_each(|number| daemon.context.changes.tell(busy(number)));
        let line = next(&mut follow(&client, Some(&token)).await).await;
        assert!(matches!(&line.change, Change::Reset { vms, .. } if vms.len() == 1), "{line:?}");
        line.token
    });
    house.kill();
    house.start();
    let client = house.listen();
    house.run(async |_| {
        let line = next(&mut follow(&client, Some(&token)).await).await;
        assert!(matches!(&line.change, Change::Reset { vms, .. } if vms[0].name == "one"), "{line:?}");
        for nonsense in ["", "1", "x-1", "00000000000000ab-+7"] {
            let refused = client.lines::<Line>(Request::get(["events"]).query("since", nonsense)).await.unwrap_err();
            assert!(matches!(&refused, ClientError::Api(error) if error.code == ErrorCode::Invalid), "{refused}");
        }
    });
}

#[test]
fn who_reads_too_slowly_is_told_so_and_cut_off() {
    let house = House::new();
    house.listen();
    let socket = house.paths().socket();
    house.run(async |daemon| {
        let mut slow = UnixStream::connect(socket).await.unwrap();
        slow.write_all(b"GET /v1/events HTTP/1.1\r\nhost: banger\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 64];
        slow.read_exact(&mut answer).await.unwrap();
        // More than the socket and the server's buffers hold, and more than is remembered.
        for _ in 0..8 * REMEMBERED {
            let verb = "x".repeat(500);
            daemon.context.changes.tell(Change::OperationStarted { operation: "test".into(), verb, on: None });
            // As with a daemon that works: the writer has its turn.
            tokio::task::yield_now().await;
        }
        let mut text = Vec::new();
        while !text.ends_with(b"0\r\n\r\n") {
            assert_ne!(slow.read_buf(&mut text).await.unwrap(), 0, "the stream is brought to its end");
        }
        let text = String::from_utf8_lossy(&text);
        let last = text.lines().rfind(|line| line.starts_with('{')).unwrap();
        assert_eq!(serde_json::from_str::<Line>(last).unwrap().change, Change::Lagged);
        assert!(text.matches("operation_started").count() < 4 * REMEMBERED);
    });
}

#[test]
fn a_hundred_vms_at_once_are_followed_without_a_gap() {
    let house = House::new();
    let client = house.listen();
    house.run(async |_| {
        let mut followers = Vec::new();
        for _ in 0..5 {
            let client = client.clone();
            followers.push(tokio::spawn(async move {
                let (mut follower, mut lines) = (Follower::default(), follow(&client, None).await);
                follower.until(&mut lines, "create", 100).await;
                follower.until(&mut lines, "rm", 50).await;
                follower
            }));
        }
        // They follow from the beginning on: nothing else has happened yet.
        let all = (0..100).map(|number| {
            let client = client.clone();
            tokio::spawn(async move {
                create(&client, &format!("vm-{number}"), true).await;
            })
        });
        for made in all.collect::<Vec<_>>() {
            made.await.unwrap();
        }
        for number in 0..50 {
            remove(&client, &format!("vm-{number}")).await;
        }
        for follower in followers {
            let follower = follower.await.unwrap();
            assert_eq!(follower.vms.len(), 50);
            assert!(follower.vms.values().all(|vm| vm.state == VmState::Stopped));
            follower.agrees(&client).await;
        }
    });
}

#[test]
fn a_daemon_that_goes_ends_the_stream_in_order() {
    let house = House::new();
    let client = house.listen();
    house.run(async |_| {
        let mut lines = follow(&client, None).await;
        next(&mut lines).await;
        client.call::<()>(Request::post(["daemon", "stop"])).await.unwrap();
        assert_eq!(lines.next().await.unwrap(), None);
    });
}
