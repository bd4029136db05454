//! Names for VMs whose creators give none: two words, easy to say, to type and to tell apart. Pure.

use super::definition::word;

/// How things are. None of them is said of people, or could be meant for one.
const FIRST: [&str; 64] = [
    "agile", "amber", "ample", "azure", "balmy", "bold", "brisk", "bright", "calm", "candid", "clever", "cosmic",
    "cozy", "crisp", "dapper", "deft", "eager", "early", "elfin", "fabled", "fleet", "fluent", "frosty", "gentle",
    "golden", "happy", "hardy", "honest", "humble", "ivory", "jolly", "keen", "kind", "lively", "lucid", "lunar",
    "mellow", "merry", "mighty", "misty", "modest", "nimble", "noble", "novel", "opal", "patient", "placid", "plucky",
    "polar", "proud", "quiet", "rapid", "rustic", "serene", "silver", "snug", "solar", "steady", "sunny", "swift",
    "tidy", "vivid", "warm", "witty",
];

/// Animals, of up to eight letters.
const SECOND: [&str; 64] = [
    "alpaca", "badger", "beaver", "bison", "bittern", "bobcat", "camel", "civet", "condor", "coyote", "crane",
    "curlew", "dingo", "dolphin", "dormouse", "egret", "ermine", "falcon", "ferret", "finch", "fox", "gannet",
    "gazelle", "gecko", "gibbon", "heron", "hare", "ibex", "ibis", "jackdaw", "jaguar", "kestrel", "kiwi", "koala",
    "lark", "lemur", "lynx", "magpie", "marmot", "marten", "merlin", "mole", "newt", "ocelot", "oriole", "osprey",
    "otter", "owl", "panda", "penguin", "plover", "puffin", "quail", "rabbit", "raven", "robin", "seal", "stoat",
    "swan", "tapir", "toucan", "walrus", "wombat", "wren",
];

/// The name that these random bytes give.
pub fn made_up(random: [u8; 2]) -> String {
    let pick = |words: &[&'static str; 64], byte: u8| words[usize::from(byte) % 64];
    format!("{}-{}", pick(&FIRST, random[0]), pick(&SECOND, random[1]))
}

/// The same, and some letters more: for who finds others taken.
pub fn made_up_longer(random: [u8; 5]) -> String {
    format!("{}-{}", made_up([random[0], random[1]]), word(&random[2..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_api::name::VmName;
    use std::collections::BTreeSet;

    #[test]
    fn they_are_names_and_there_are_thousands() {
        let mut names = BTreeSet::new();
        for first in 0..64 {
            for second in 0..64 {
                names.insert(made_up([first, second]));
            }
        }
        assert_eq!(names.len(), 64 * 64);
        assert!(names.iter().all(|name| name.parse::<VmName>().is_ok() && name.len() <= 16), "{names:?}");
        assert!(made_up_longer([255; 5]).parse::<VmName>().is_ok());
    }
}
