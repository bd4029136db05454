//! Faults in a change of a VM: it is what its record says, and a change that was recorded holds from the next start on.

use std::sync::Arc;

use banger_api::change::{Change, Effect, VmSet};
use bangerd::operation::Operation;
use bangerd::operation::fault::{Mode, Phase, Step};
use bangerd::serve::Daemon;
use bangerd::vm::change::Wanted;
use bangerd::vm::error::VmError;

use crate::support::{House, Verb};

/// The points that a change passes.
pub const POINTS: [Step; 2] = [Step::RecordChange, Step::GrowDisk];

const MIB: u64 = 1024 * 1024;

async fn grow(daemon: Arc<Daemon>) -> Result<Vec<Change>, VmError> {
    let set = VmSet { disk: Some(3 * MIB), cpus: Some(1), ..VmSet::default() };
    let (operation, _) = Operation::begin("set", "one");
    daemon.registry.find("one")?.change(Wanted::Set(set), operation).await.map(|(_, changes)| changes)
}

fn disk_size(house: &House) -> u64 {
    let view = house.vm("one").unwrap();
    std::fs::metadata(house.paths().vm(view.definition.id.as_str()).work).unwrap().len()
}

#[test]
fn a_change_is_recorded_or_it_is_not_and_holds_from_the_next_start_on() {
    for step in POINTS {
        for phase in [Phase::Before, Phase::After] {
            for mode in [Mode::Fail, Mode::Hang] {
                let point = format!("{step:?} {phase:?} {mode:?}");
                let mut house = House::new();
                house.run_or_die(Verb::Create).unwrap().unwrap();
                house.faults.plan(step, phase, mode);
                let ended = house.or_die(grow);
                assert!(!house.faults.unplan(), "{point}: the point was not passed");
                match (mode, step, ended) {
                    (Mode::Hang, _, None) => house.start(),
                    (Mode::Fail, Step::RecordChange, Some(Err(_))) => {}
                    // What a running guest cannot be told holds from its next start on, and that is no failure.
                    (Mode::Fail, Step::GrowDisk, Some(Ok(changes))) => {
                        let disk = changes.iter().find(|change| change.field == "disk").unwrap();
                        assert!(disk.effect == Effect::NextStart && disk.reason.is_some(), "{point}: {disk:?}");
                    }
                    (_, _, ended) => panic!("{point}: {ended:?}"),
                }
                let recorded = (step, phase) != (Step::RecordChange, Phase::Before);
                let definition = house.vm("one").unwrap().definition;
                let expected = if recorded { (1, 3 * MIB) } else { (2, MIB) };
                assert_eq!((definition.cpus, definition.disk), expected, "{point}");

                house.run_or_die(Verb::Restart).unwrap().unwrap();
                assert_eq!(disk_size(&house), expected.1, "{point}");
                house.or_die(grow).unwrap().unwrap();
                assert_eq!(disk_size(&house), 3 * MIB, "{point}");
                house.run_or_die(Verb::Remove).unwrap().unwrap();
                assert_eq!(house.left(), Vec::<String>::new(), "{point}");
            }
        }
    }
}

#[test]
fn a_new_name_keeps_everything_else_and_frees_the_old_one() {
    let mut house = House::new();
    let before = house.run_or_die(Verb::Create).unwrap().unwrap();
    let disk = house.work_disk(&before);
    let rename = async |daemon: Arc<Daemon>, from: &str, to: &str| {
        let (operation, _) = Operation::begin("rename", from);
        daemon.registry.find(from)?.change(Wanted::Name(to.to_owned()), operation).await
    };
    let (after, changes) = house.run(async |daemon| rename(daemon, "one", "two").await).unwrap();
    assert_eq!((changes.len(), changes[0].effect), (1, Effect::Now));
    assert_eq!(
        (&after.definition.id, &after.definition.host_key),
        (&before.definition.id, &before.definition.host_key)
    );
    assert_eq!((after.state, after.pid), (before.state, before.pid));
    assert!(house.vm("one").is_none());
    house.kill();
    house.start();
    assert_eq!(house.work_disk(&house.vm("two").unwrap()), disk);
    house.run_or_die(Verb::Create).unwrap().unwrap();
    let taken = house.run(async |daemon| rename(daemon, "two", "one").await);
    assert!(matches!(taken, Err(VmError::Store(_))), "{taken:?}");
    let by_id = house.run(async |daemon| rename(daemon, before.definition.id.as_str(), "three").await);
    assert_eq!(by_id.unwrap().0.definition.name, "three");
}
