//! Guests that are not as they should be: of an older protocol, silent, dead at once, dead later.

#![expect(clippy::unwrap_used, reason = "a test that fails shall panic")]

use std::sync::Arc;

use crate::support::{House, Verb};
use banger_api::vm::{Lifetime, VmCreate};
use banger_protocol::call::{Answer, Call, Exec};
use banger_protocol::frame::{self, Kind};
use bangerd::guest::GuestError;
use bangerd::operation::Operation;
use bangerd::serve::Daemon;
use bangerd::vm::error::VmError;
use bangerd::vm::state::State;

async fn output_of(daemon: Arc<Daemon>, command: &str) -> String {
    let guest = daemon.registry.find("one").unwrap().view().guest.unwrap();
    let argv = ["sh", "-c", command].map(str::to_owned).to_vec();
    let (answer, mut stream) = guest.call(&Call::Exec(Exec { argv, ..Exec::default() })).await.unwrap();
    assert!(matches!(answer, Answer::Started { .. }));
    let mut output = String::new();
    loop {
        let frame = frame::read(&mut stream).await.unwrap();
        match frame.kind {
            Kind::Stdout => output.push_str(std::str::from_utf8(&frame.payload).unwrap()),
            Kind::Exit => return output,
            _ => {}
        }
    }
}

#[test]
fn an_agent_of_the_protocol_before_is_served() {
    let mut house = House::with(r#"exec "$AGENT" "$@" --protocol 1"#);
    house.run_or_die(Verb::Create).unwrap().unwrap();
    house.run(async |daemon| {
        let guest = daemon.registry.find("one").unwrap().view().guest.unwrap();
        assert_eq!(guest.welcome.protocol, 1);
        guest.set_clock().await.unwrap();
        assert!(matches!(guest.call(&Call::Facts).await, Err(GuestError::TooOld(1))));
        let get = Call::Get { path: "*".into(), pattern: true };
        assert!(matches!(guest.call(&get).await, Err(GuestError::TooOld(1))));
        assert_eq!(output_of(daemon, "echo still here").await, "still here\n");
    });
    house.kill();
    house.start();
    let stopped = house.run_or_die(Verb::Stop).unwrap().unwrap();
    assert_eq!(stopped.state, State::Stopped { reason: None });
}

#[test]
fn ssh_keys_are_told_at_boot_and_later_and_kept() {
    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ1dCBub3QgYSByZWFsIG9uZSBhdCBhbGwhISEh";
    const READ: &str = "grep -v '#' .banger/etc/ssh/banger-keys.d/root";
    let other = KEY.replace("GJ1", "GJ2");
    let mut house = House::new();
    let told = |house: &House| house.run(async |daemon| output_of(daemon, READ).await);
    house.run(async |daemon| {
        let (operation, _) = Operation::begin("create", "one");
        let request = VmCreate { name: Some("one".into()), ssh_keys: vec![KEY.into()], ..VmCreate::default() };
        daemon.registry.create(&request, &operation).await.unwrap().done().await.unwrap();
    });
    assert_eq!(told(&house), format!("{KEY}\n"));
    house.run(async |daemon| {
        let vm = daemon.registry.find("one").unwrap();
        let generation = vm.view().generation;
        // What is known already changes nothing.
        assert_eq!(vm.authorize(vec![format!("{KEY} again")]).await.unwrap().generation, generation);
        vm.authorize(vec![other.clone()]).await.unwrap();
        assert!(matches!(vm.authorize(vec!["no key".into()]).await, Err(VmError::Spec(_))));
    });
    let both = format!("{KEY}\n{other}\n");
    assert_eq!(told(&house), both);
    house.kill();
    house.start();
    house.run_or_die(Verb::Stop).unwrap().unwrap();
    house.run_or_die(Verb::Start).unwrap().unwrap();
    assert_eq!(told(&house), both);
}

#[test]
fn an_agent_that_cannot_be_told_of_ssh_keys_is_said_to_be_too_old_and_none_is_recorded() {
    let mut house = House::with(r#"exec "$AGENT" "$@" --protocol 3"#);
    house.run_or_die(Verb::Create).unwrap().unwrap();
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ1dCBub3QgYSByZWFsIG9uZSBhdCBhbGwhISEh";
    house.run(async |daemon| {
        let vm = daemon.registry.find("one").unwrap();
        let refused = vm.authorize(vec![key.to_owned()]).await;
        assert!(matches!(refused, Err(VmError::Guest(GuestError::TooOld(3)))), "{refused:?}");
        assert_eq!(vm.view().definition.ssh_keys, Vec::<String>::new());
    });
}

#[test]
fn a_silent_guest_fails_its_create_at_the_deadline_and_leaves_nothing() {
    let mut house = House::with("exec sleep 60");
    let failed = house.run_or_die(Verb::Create).unwrap().unwrap_err();
    assert!(matches!(failed, VmError::AgentSilent { seconds: 3, .. }), "{failed:?}");
    assert_eq!(house.left(), Vec::<String>::new());
}

#[test]
fn a_guest_that_goes_down_is_quoted() {
    let mut house = House::with("echo 'banger-agent: cannot boot: no root disk' >&2");
    let failed = house.run_or_die(Verb::Create).unwrap().unwrap_err();
    assert!(matches!(failed, VmError::WentDown { .. }), "{failed:?}");
    assert!(failed.to_string().contains("no root disk"), "{failed}");
    assert_eq!(house.left(), Vec::<String>::new());
}

#[test]
fn a_guest_that_dies_later_is_stopped_with_the_reason() {
    let mut house = House::new();
    let view = house.run_or_die(Verb::Create).unwrap().unwrap();
    let process = banger_linux::process::Process::open(view.pid.unwrap(), None).unwrap();
    process.signal(rustix::process::Signal::KILL).unwrap();
    let reason = house.run(async |daemon| {
        let mut views = daemon.registry.find("one").unwrap().follow();
        let view = views.wait_for(|view| matches!(view.state, State::Stopped { .. })).await.unwrap().clone();
        match view.state {
            State::Stopped { reason } => reason.unwrap(),
            other => panic!("{other:?}"),
        }
    });
    assert!(reason.contains("signal: 9"), "{reason}");
    house.run_or_die(Verb::Start).unwrap().unwrap();
    house.run_or_die(Verb::Remove).unwrap().unwrap();
    assert_eq!(house.left(), Vec::<String>::new());
}

#[test]
fn a_vm_of_another_boot_of_the_host_is_stopped_with_the_reason() {
    let mut house = House::new();
    house.run_or_die(Verb::Create).unwrap().unwrap();
    let disk = house.vm("one").map(|view| house.work_disk(&view));
    house.kill();
    house.end_processes();
    house.pretend_a_reboot();
    house.start();
    let view = house.vm("one").unwrap();
    assert_eq!(view.state, State::Stopped { reason: Some("the host was rebooted".into()) });
    assert_eq!(Some(house.work_disk(&view)), disk);
}

#[test]
fn an_ephemeral_vm_goes_with_its_lease_also_when_the_daemon_was_killed() {
    let mut house = House::new();
    for daemon_dies in [false, true] {
        house.run(async |daemon| {
            let (operation, _) = Operation::begin("test", "one");
            let lifetime = Lifetime::Connection;
            let request = VmCreate { name: Some("one".into()), lifetime, ..VmCreate::default() };
            daemon.registry.create(&request, &operation).await.unwrap().done().await.unwrap();
            if !daemon_dies {
                daemon.registry.find("one").unwrap().lease_ended().await;
            }
        });
        if daemon_dies {
            house.kill();
            house.start();
        }
        assert!(house.vm("one").is_none());
        assert_eq!(house.left(), Vec::<String>::new());
    }
}

#[test]
fn only_one_operation_at_a_time_but_a_kill_comes_first() {
    let mut house = House::with("exec sleep 60");
    house.run(async |daemon| {
        let (operation, _) = Operation::begin("create", "one");
        let request = VmCreate { name: Some("one".into()), ..VmCreate::default() };
        let created = daemon.registry.create(&request, &operation).await.unwrap();
        let handle = daemon.registry.find("one").unwrap();
        let refused = handle.start(Operation::unwatched("start", "one")).await;
        assert!(matches!(refused, Err(VmError::Busy { verb: "create", .. })), "{refused:?}");
        let removed = handle.remove(true, Operation::unwatched("rm", "one")).await;
        assert!(matches!(created.done().await, Err(VmError::Cancelled("create"))));
        assert!(removed.unwrap().gone);
    });
    assert_eq!(house.left(), Vec::<String>::new());
    house.kill();
}
