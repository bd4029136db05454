//! The fault loop: every point of every verb fails once, and is where the daemon is killed once. Whatever happens, the VM is
//! as it is recorded or nothing of it is left, and nothing but `rm` and a failed create takes a disk.

#![expect(clippy::unwrap_used, reason = "a test that fails shall panic")]

mod changes;
mod images;
mod network;
mod work_disk;

use crate::support::{House, Verb, runs};
use bangerd::operation::Operation;
use bangerd::operation::fault::{Mode, Phase, Step};
use bangerd::vm::error::VmError;
use bangerd::vm::state::State;

/// The points that a verb passes.
fn points(verb: Verb) -> &'static [Step] {
    use Step::*;
    match verb {
        Verb::Create => &[Reserve, CloneRoot, CloneWork, RecordStart, Prepare, StartVmm, AwaitAgent, RecordRunning],
        Verb::Start => &[RecordStart, Prepare, StartVmm, AwaitAgent, RecordRunning],
        Verb::Stop => &[RecordStop, PowerOff, EndVmm, RemoveRuntime, RecordStopped],
        Verb::Kill => &[RecordStop, EndVmm, RemoveRuntime, RecordStopped],
        Verb::Restart => &[
            RecordStop,
            PowerOff,
            EndVmm,
            RemoveRuntime,
            RecordStopped,
            RecordStart,
            Prepare,
            StartVmm,
            AwaitAgent,
            RecordRunning,
        ],
        Verb::Remove => &[RecordRemove, EndVmm, RemoveRuntime, RemoveDisks, Forget],
    }
}

/// A house in which the verb can be run.
fn prepared(verb: Verb, mut house: House) -> House {
    let before: &[Verb] = match verb {
        Verb::Create => &[],
        Verb::Start => &[Verb::Create, Verb::Stop],
        Verb::Stop | Verb::Kill | Verb::Restart | Verb::Remove => &[Verb::Create],
    };
    for verb in before {
        house.run_or_die(*verb).unwrap().unwrap();
    }
    house
}

fn strike_everywhere(verb: Verb) {
    for &step in points(verb) {
        strike_at(verb, step, House::new);
    }
}

fn strike_at(verb: Verb, step: Step, house: fn() -> House) {
    for phase in [Phase::Before, Phase::After] {
        for mode in [Mode::Fail, Mode::Hang] {
            strike(verb, step, phase, mode, house());
        }
    }
}

fn strike(verb: Verb, step: Step, phase: Phase, mode: Mode, house: House) {
    let point = format!("{verb:?} {step:?} {phase:?} {mode:?}");
    let mut house = prepared(verb, house);
    let disk = house.vm("one").map(|view| house.work_disk(&view));

    house.faults.plan(step, phase, mode);
    let ended = house.run_or_die(verb);
    assert!(!house.faults.unplan(), "{point}: the point was not passed");
    match (mode, ended) {
        (Mode::Hang, None) => house.start(),
        (Mode::Fail, Some(Err(_))) => {}
        (_, ended) => panic!("{point}: {ended:?}"),
    }

    as_recorded(&house, &point);
    match (verb, house.vm("one")) {
        (Verb::Create, None) => assert_eq!(house.left(), Vec::<String>::new(), "{point}"),
        (Verb::Create, Some(_)) => assert_eq!(mode, Mode::Hang, "{point}: a failed create left a VM"),
        (Verb::Remove, None) => assert_eq!(house.left(), Vec::<String>::new(), "{point}"),
        (Verb::Remove, Some(_)) => {}
        (_, None) => panic!("{point}: the VM is gone"),
        (_, Some(view)) => assert_eq!(Some(house.work_disk(&view)), disk, "{point}: the work disk changed"),
    }

    // A second try does it, whatever the first one left.
    if house.vm("one").is_none() == (verb == Verb::Create) {
        let again = house.run_or_die(verb).unwrap();
        assert!(again.is_ok(), "{point}: again: {again:?}");
        as_recorded(&house, &point);
    }
    if house.vm("one").is_some() {
        house.run_or_die(Verb::Remove).unwrap().unwrap();
    }
    assert_eq!(house.left(), Vec::<String>::new(), "{point}: after rm");
}

/// A VM that is said to run has one process, one that is said to be stopped has none.
fn as_recorded(house: &House, point: &str) {
    let Some(view) = house.vm("one") else { return };
    let processes = house.processes();
    match &view.state {
        state if runs(state) => assert_eq!(processes.len(), 1, "{point}: {processes:?}"),
        State::Stopped { .. } => assert!(processes.is_empty(), "{point}: {processes:?}"),
        // A removal or stop that failed half-way says so, and is tried again.
        _ => {}
    }
}

#[test]
fn create() {
    strike_everywhere(Verb::Create);
}

#[test]
fn start() {
    strike_everywhere(Verb::Start);
}

#[test]
fn stop() {
    strike_everywhere(Verb::Stop);
}

#[test]
fn kill() {
    strike_everywhere(Verb::Kill);
}

#[test]
fn restart() {
    strike_everywhere(Verb::Restart);
}

#[test]
fn remove() {
    strike_everywhere(Verb::Remove);
}

/// A cancelled create leaves nothing; a cancelled start leaves the disks as they were.
#[test]
fn cancel() {
    for verb in [Verb::Create, Verb::Start] {
        for &step in points(verb).iter().filter(|step| **step != Step::Reserve) {
            for phase in [Phase::Before, Phase::After] {
                cancel_at(verb, step, phase);
            }
        }
    }
}

fn cancel_at(verb: Verb, step: Step, phase: Phase) {
    let point = format!("{verb:?} {step:?} {phase:?} cancelled");
    let house = prepared(verb, House::new());
    let disk = house.vm("one").map(|view| house.work_disk(&view));
    house.faults.plan(step, phase, Mode::Hang);
    let faults = house.faults.clone();
    let (operation, _progress) = Operation::begin("test", "one");
    let ended = house.run(async |daemon| {
        let work = verb.run_as(daemon, operation.clone());
        let cancel = async {
            faults.struck().await;
            operation.cancel();
        };
        tokio::join!(work, cancel).0
    });
    assert!(matches!(ended, Err(VmError::Cancelled(_))), "{point}: {ended:?}");
    match house.vm("one") {
        None => assert_eq!((verb, house.left()), (Verb::Create, Vec::new()), "{point}"),
        Some(view) => {
            assert_eq!(verb, Verb::Start, "{point}");
            assert!(matches!(view.state, State::Stopped { .. }), "{point}: {:?}", view.state);
            assert_eq!(Some(house.work_disk(&view)), disk, "{point}");
            assert!(house.processes().is_empty(), "{point}");
        }
    }
}

/// What fails while a failed create is undone is told beside the cause, and the rest is found by the next removal.
#[test]
fn both_the_cause_and_what_failed_after_it_are_told() {
    let mut house = House::new();
    house.faults.plan(Step::AwaitAgent, Phase::Before, Mode::Fail);
    house.faults.plan(Step::RemoveDisks, Phase::Before, Mode::Fail);
    let failed = house.run_or_die(Verb::Create).unwrap().unwrap_err();
    let VmError::WithAftermath { cause, also } = failed else { panic!("{failed:?}") };
    assert!(cause.to_string().contains("AwaitAgent"), "{cause}");
    assert!(also.len() == 1 && also[0].to_string().contains("RemoveDisks"), "{also:?}");
    assert!(!house.left().is_empty());
    house.run_or_die(Verb::Remove).unwrap().unwrap();
    assert_eq!(house.left(), Vec::<String>::new());
}

#[test]
fn no_point_is_left_out() {
    let verbs = [Verb::Create, Verb::Start, Verb::Stop, Verb::Kill, Verb::Restart, Verb::Remove];
    for step in Step::ALL {
        let of_a_vm = verbs.iter().any(|verb| points(*verb).contains(&step));
        let of_an_image = images::BUILD.contains(&step) || images::REMOVE.contains(&step);
        let elsewhere = changes::POINTS.contains(&step) || network::POINTS.contains(&step);
        assert!(of_a_vm || of_an_image || elsewhere, "{step:?} is never struck");
    }
}
