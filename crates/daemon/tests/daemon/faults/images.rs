//! The same for images: a build that fails or is killed leaves nothing, and a removal is brought to its end.

use std::sync::Arc;

use banger_api::image::ImageBuild;
use bangerd::image::builds::BuildError;
use bangerd::operation::Operation;
use bangerd::operation::fault::{Mode, Phase, Step};
use bangerd::serve::Daemon;

use crate::support::House;

/// The points that a build passes.
pub const BUILD: [Step; 8] = [
    Step::ReserveImage,
    Step::InstallPackages,
    Step::PrepareTree,
    Step::UnpackKernel,
    Step::MakeRootDisk,
    Step::MakeWorkSeed,
    Step::PublishImage,
    Step::CompleteImage,
];

/// The points that a removal passes.
pub const REMOVE: [Step; 3] = [Step::RetireImage, Step::RemoveImage, Step::ForgetImage];

async fn build(daemon: Arc<Daemon>, operation: Operation) -> Result<(), BuildError> {
    let request = ImageBuild { name: Some("tiny".into()), ..ImageBuild::default() };
    daemon.builds.build(&request, &operation).await.map(drop)
}

async fn remove(daemon: Arc<Daemon>) -> Result<(), BuildError> {
    daemon.builds.remove("tiny").await.map(drop)
}

fn begin() -> Operation {
    Operation::begin("test", "tiny").0
}

/// Nothing but the image that the house came with, and nothing on the way.
fn assert_clean(house: &House, point: &str) {
    assert_eq!(house.images(), (vec!["debian: ready".to_owned()], 1), "{point}");
    assert_eq!(house.left(), Vec::<String>::new(), "{point}");
}

fn assert_built(house: &House, point: &str) {
    assert_eq!(house.images(), (vec!["debian: ready".to_owned(), "tiny: ready".to_owned()], 2), "{point}");
    assert_eq!(house.left(), Vec::<String>::new(), "{point}");
}

/// Images are built by root alone: they hold files of other users.
fn may_build() -> bool {
    let may = rustix::process::geteuid().is_root();
    if !may {
        banger_skip::skipped!("not root");
    }
    may
}

fn everywhere(steps: &[Step], strike: impl Fn(Step, Phase, Mode)) {
    for &step in steps {
        for phase in [Phase::Before, Phase::After] {
            for mode in [Mode::Fail, Mode::Hang] {
                strike(step, phase, mode);
            }
        }
    }
}

/// Fails or kills what is done there; a killed daemon is started again.
fn strike(
    house: &mut House,
    (step, phase, mode): (Step, Phase, Mode),
    work: impl AsyncFnOnce(Arc<Daemon>) -> Result<(), BuildError>,
) {
    let point = format!("{step:?} {phase:?} {mode:?}");
    house.faults.plan(step, phase, mode);
    let ended = house.or_die(work);
    assert!(!house.faults.unplan(), "{point}: the point was not passed");
    match (mode, ended) {
        (Mode::Hang, None) => house.start(),
        (Mode::Fail, Some(Err(_))) => {}
        (_, ended) => panic!("{point}: {ended:?}"),
    }
}

#[test]
fn build_image() {
    if !may_build() {
        return;
    }
    everywhere(&BUILD, |step, phase, mode| {
        let point = format!("build {step:?} {phase:?} {mode:?}");
        let mut house = House::new();
        strike(&mut house, (step, phase, mode), async |daemon| build(daemon, begin()).await);
        if (step, phase, mode) == (Step::CompleteImage, Phase::After, Mode::Hang) {
            // It was recorded: only its builder never heard.
            assert_built(&house, &point);
            return;
        }
        assert_clean(&house, &point);
        house.run(async |daemon| build(daemon, begin()).await).unwrap();
        assert_built(&house, &point);
    });
}

#[test]
fn remove_image() {
    if !may_build() {
        return;
    }
    everywhere(&REMOVE, |step, phase, mode| {
        let point = format!("remove {step:?} {phase:?} {mode:?}");
        let mut house = House::new();
        house.run(async |daemon| build(daemon, begin()).await).unwrap();
        strike(&mut house, (step, phase, mode), remove);
        match house.run(remove) {
            Ok(()) | Err(BuildError::NotFound(_)) => {}
            Err(error) => panic!("{point}: again: {error:?}"),
        }
        assert_clean(&house, &point);
    });
}

#[test]
fn cancel_a_build() {
    if !may_build() {
        return;
    }
    for &step in BUILD.iter().filter(|step| !matches!(step, Step::ReserveImage | Step::CompleteImage)) {
        for phase in [Phase::Before, Phase::After] {
            let point = format!("build {step:?} {phase:?} cancelled");
            let house = House::new();
            house.faults.plan(step, phase, Mode::Hang);
            let (faults, operation) = (house.faults.clone(), begin());
            let ended = house.run(async |daemon| {
                let cancel = async {
                    faults.struck().await;
                    operation.cancel();
                };
                tokio::join!(build(daemon, operation.clone()), cancel).0
            });
            assert!(matches!(ended, Err(BuildError::Cancelled)), "{point}: {ended:?}");
            assert_clean(&house, &point);
        }
    }
}
