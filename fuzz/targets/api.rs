//! Bodies of the API, of either side: what is understood is written again as an equal value, and a request to create a VM
//! is resolved or refused by the daemon.

#![no_main]

use std::fmt::Debug;

use banger_api::change::{VmChanged, VmRename, VmSet};
use banger_api::console::Attached;
use banger_api::daemon::{Finding, Status, Version};
use banger_api::dns::{Dns, DnsInstall};
use banger_api::error::ApiError;
use banger_api::events::Line;
use banger_api::exec::{ExecRequest, ExecStarted};
use banger_api::image::{Image, ImageBuild};
use banger_api::operation::Event;
use banger_api::stats::VmStats;
use banger_api::vm::{Lifetime, RestartPolicy, Vm, VmCreate, VmStop};
use bangerd::config::Config;
use bangerd::image::record::{ImageRecord, ImageState};
use bangerd::vm::change::{self, Wanted};
use bangerd::vm::definition::{Definition, VmId};
use bangerd::vm::spec::{self, Host};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|input: (u64, u64, &[u8])| {
    let (memory, seed, body) = input;
    // No host has more, and none has files as large.
    let (memory, seed) = (memory >> 2, seed >> 2);
    if let Some(request) = again::<VmCreate>(body) {
        resolve(&request, memory, seed);
    }
    if let Some(set) = again::<VmSet>(body) {
        change(Wanted::Set(set), memory);
    }
    if let Some(rename) = again::<VmRename>(body) {
        change(Wanted::Name(rename.name), memory);
    }
    again::<VmStop>(body);
    again::<ImageBuild>(body);
    if let Some(request) = again::<ExecRequest>(body) {
        drop(spec::check_env(&request.env));
    }
    again::<ExecStarted>(body);
    again::<Vm>(body);
    again::<Vec<Vm>>(body);
    again::<Image>(body);
    again::<VmChanged>(body);
    again::<VmStats>(body);
    again::<Attached>(body);
    again::<Line>(body);
    again::<Status>(body);
    again::<Version>(body);
    again::<Finding>(body);
    again::<Dns>(body);
    again::<DnsInstall>(body);
    again::<ApiError>(body);
    again::<Event<Vm>>(body);
    again::<Event<Image>>(body);
});

fn again<T: Serialize + DeserializeOwned + PartialEq + Debug>(body: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(body).ok()?;
    let written = serde_json::to_vec(&value).expect("what was read can be written");
    assert_eq!(serde_json::from_slice::<T>(&written).expect("what was written can be read"), value);
    Some(value)
}

/// What is changed has another value, and nothing else has.
fn change(wanted: Wanted, memory: u64) {
    let current = Definition {
        id: VmId::from_record("v".into()),
        name: "devbox".into(),
        image_id: "i".into(),
        image: "debian".into(),
        cpus: 2,
        memory: 1 << 30,
        disk: 1 << 33,
        env: [("A".to_owned(), "1".to_owned())].into(),
        workdir: None,
        user: None,
        ssh_keys: Vec::new(),
        net: banger_api::vm::Net::None,
        address: None,
        publish: Vec::new(),
        lifetime: Lifetime::Kept,
        restart: RestartPolicy::No,
        uid: 1,
        machine_id: String::new(),
        host_key: String::new(),
        host_key_public: String::new(),
        created: 0,
    };
    if let Ok((next, changes)) = change::plan(&current, &wanted, &Host { memory }) {
        assert_eq!(changes.is_empty(), next == current);
        assert!(changes.iter().all(|change| change.from != change.to));
    }
}

fn resolve(request: &VmCreate, memory: u64, seed: u64) {
    let image = ImageRecord {
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
    };
    let name = request.name.clone().unwrap_or_else(|| "swift-otter".to_owned());
    let resolved = spec::resolve(request, name, Some(image), seed, &Host { memory }, &Config::default());
    if let Ok(spec) = resolved {
        assert!(spec.cpus > 0 && spec.memory <= memory && spec.disk >= seed, "{spec:?}");
        assert!(spec.memory % (1 << 20) == 0 && spec.disk % (1 << 20) == 0, "{spec:?}");
        assert!(request.memory.is_none_or(|asked| spec.memory >= asked), "{spec:?}");
        assert!(request.disk.is_none_or(|asked| spec.disk >= asked), "{spec:?}");
    } else if let Err(error) = resolved {
        assert!(!error.to_string().contains(char::is_control), "{error}");
    }
}
