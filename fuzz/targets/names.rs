//! Names: the command line's rule and the daemon's own check agree on every text, and what is suggested is a name.

#![no_main]

use banger_api::name::VmName;
use banger_api::vm::VmCreate;
use bangerd::config::Config;
use bangerd::image::record::{ImageRecord, ImageState};
use bangerd::vm::spec::{self, Host, SpecError};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let parsed = text.parse::<VmName>();
    let host = Host { memory: 1 << 40 };
    let resolved = spec::resolve(&VmCreate::default(), text.to_owned(), Some(image()), 0, &host, &Config::default());
    match (&parsed, &resolved) {
        (Ok(name), Ok(spec)) => assert_eq!((name.as_str(), spec.name.as_str()), (text, text)),
        (Err(_), Err(SpecError::Name { .. })) => {}
        other => panic!("the two rules differ on {text:?}: {other:?}"),
    }
    if let Err(error) = parsed {
        for line in [error.to_string(), error.help(), error.flaw().to_string()] {
            assert!(!line.contains(char::is_control), "{line:?} could command a terminal");
        }
        if let Some(suggestion) = error.suggestion() {
            assert_eq!(suggestion.parse::<VmName>().expect("a suggestion is a name").as_str(), suggestion);
        }
    }
});

fn image() -> ImageRecord {
    ImageRecord {
        id: "i".into(),
        name: "debian".into(),
        state: ImageState::Ready,
        system: String::new(),
        kernel: String::new(),
        size: 1 << 33,
        packages: 1,
        manifest: String::new(),
        work_seed: true,
        suite: String::new(),
        added: Vec::new(),
        created: 0,
    }
}
