//! The points of a VM's network, each in a network namespace of its own, whose links and rules are told by `ip` and `nft`.

use std::process::Command;

use banger_linux::netns;
use bangerd::operation::fault::Step;

use super::{House, Verb, strike_at};

/// Those of the network alone; what they are struck in is named below.
pub const POINTS: [Step; 3] = [Step::ClaimPort, Step::AdmitPort, Step::ReleasePort];

/// What a command says, in the network of the thread that asks.
#[expect(clippy::disallowed_methods, reason = "tests use tools that are not banger's to judge what banger did")]
fn said(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The names of the links that there are.
fn links() -> Vec<String> {
    let listed: Vec<serde_json::Value> = serde_json::from_str(&said("ip", &["-j", "link"])).unwrap();
    listed.iter().map(|link| link["ifname"].as_str().unwrap().to_owned()).collect()
}

/// After any fault at any of a verb's points of the network, and after the VM is gone: its element is not in the rules any more, and
/// no TAP is lost, as the next VM takes one that waits.
fn strike_in_network(verb: Verb, steps: &[Step]) {
    for &step in steps {
        let ran = netns::in_new_network(|| {
            said("ip", &["link", "set", "lo", "up"]);
            strike_at(verb, step, House::networked);
            let pinned = said("nft", &["-j", "list", "set", "bridge", "banger", "pinned"]);
            assert!(pinned.contains("\"pinned\"") && !pinned.contains("elem"), "{verb:?} {step:?}: {pinned}");
            let taps = links().iter().filter(|name| name.starts_with("tap-pool-")).count();
            // As many as wait, and one that was in use.
            assert!(taps <= 5, "{verb:?} {step:?}: {:?}", links());
        });
        if let Err(error) = ran {
            banger_skip::skipped!("no network namespace can be made: {error}");
        }
    }
}

#[test]
fn create() {
    strike_in_network(
        Verb::Create,
        &[Step::Reserve, Step::ClaimPort, Step::AdmitPort, Step::StartVmm, Step::AwaitAgent],
    );
}

#[test]
fn start() {
    strike_in_network(Verb::Start, &[Step::RecordStart, Step::ClaimPort, Step::AdmitPort, Step::Prepare]);
}

#[test]
fn stop() {
    strike_in_network(Verb::Stop, &[Step::EndVmm, Step::ReleasePort, Step::RemoveRuntime]);
}

#[test]
fn kill() {
    strike_in_network(Verb::Kill, &[Step::ReleasePort]);
}

#[test]
fn remove() {
    strike_in_network(Verb::Remove, &[Step::ReleasePort, Step::RemoveRuntime]);
}
