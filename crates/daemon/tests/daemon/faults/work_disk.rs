//! Nothing but `rm`, a failed `create` and `--rm` ever deletes a disk: one VM goes through every fault of every other verb,
//! through cancellations, kills of the daemon and reboots of the host, and at the end its disks are the very files.

use std::os::unix::fs::MetadataExt;

use bangerd::operation::Operation;
use bangerd::operation::fault::{Mode, Phase, Step};
use bangerd::vm::state::State;

use super::points;
use crate::support::{House, Verb};

/// The files themselves: where they lie on the disk, whose they are, and all that is in them.
fn disks(house: &House) -> Vec<(u64, u32, u32, Vec<u8>)> {
    let view = house.vm("one").unwrap();
    let paths = house.paths().vm(view.definition.id.as_str());
    let disk = |path: std::path::PathBuf| {
        let metadata = std::fs::metadata(&path).unwrap();
        (metadata.ino(), metadata.uid(), metadata.mode(), std::fs::read(&path).unwrap())
    };
    vec![disk(paths.root), disk(paths.work)]
}

/// Brings the VM to where a verb can be tried, whatever the fault before has left.
fn ready_for(verb: Verb, house: &mut House) {
    let runs = matches!(house.vm("one").unwrap().state, State::Running(_));
    match (verb, runs) {
        (Verb::Start, true) => drop(house.run_or_die(Verb::Stop).unwrap().unwrap()),
        // A stop that failed half way is brought to its end.
        (Verb::Start, false) => drop(house.run_or_die(Verb::Kill).unwrap().unwrap()),
        (_, true) => {}
        (_, false) => {
            house.run_or_die(Verb::Kill).unwrap().unwrap();
            house.run_or_die(Verb::Start).unwrap().unwrap();
        }
    }
}

fn fault(house: &mut House, verb: Verb, (step, phase, mode): (Step, Phase, Mode)) {
    ready_for(verb, house);
    house.faults.plan(step, phase, mode);
    if house.run_or_die(verb).is_none() {
        house.start();
    }
    assert!(!house.faults.unplan(), "{verb:?} {step:?} {phase:?}: the point was not passed");
}

fn cancelled_start(house: &mut House, (step, phase): (Step, Phase)) {
    ready_for(Verb::Start, house);
    house.faults.plan(step, phase, Mode::Hang);
    let (faults, operation) = (house.faults.clone(), Operation::begin("test", "one").0);
    let started = house.run(async |daemon| {
        let cancel = async {
            faults.struck().await;
            operation.cancel();
        };
        tokio::join!(Verb::Start.run_as(daemon, operation.clone()), cancel).0
    });
    assert!(started.is_err(), "start {step:?} {phase:?}: it was not cancelled");
}

#[test]
fn no_fault_takes_a_disk() {
    let mut house = House::new();
    house.run_or_die(Verb::Create).unwrap().unwrap();
    house.run_or_die(Verb::Stop).unwrap().unwrap();
    let work = house.paths().vm(house.vm("one").unwrap().definition.id.as_str()).work;
    let written: Vec<u8> =
        (0u32..256 * 1024).flat_map(|number| number.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    std::fs::write(&work, written).unwrap();
    let before = disks(&house);

    for verb in [Verb::Start, Verb::Stop, Verb::Kill] {
        for &step in points(verb) {
            for phase in [Phase::Before, Phase::After] {
                for mode in [Mode::Fail, Mode::Hang] {
                    fault(&mut house, verb, (step, phase, mode));
                    assert!(disks(&house) == before, "{verb:?} {step:?} {phase:?} {mode:?}: a disk changed");
                }
                if verb == Verb::Start {
                    cancelled_start(&mut house, (step, phase));
                    assert!(disks(&house) == before, "{step:?} {phase:?} cancelled: a disk changed");
                }
            }
        }
    }
    for runs in [true, false] {
        ready_for(if runs { Verb::Stop } else { Verb::Start }, &mut house);
        house.kill();
        house.end_processes();
        house.pretend_a_reboot();
        house.start();
        assert!(disks(&house) == before, "a reboot of the host changed a disk");
    }

    house.run_or_die(Verb::Remove).unwrap().unwrap();
    assert_eq!(house.left(), Vec::<String>::new());
}
