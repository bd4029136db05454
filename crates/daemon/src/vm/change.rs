//! From what somebody wants changed to what the VM is then, and when each part takes effect. Pure.

use banger_api::change::{Change, Effect, VmSet};
use banger_api::vm::{Lifetime, RestartPolicy};

use super::definition::Definition;
use super::spec::{self, Host, SpecError};

/// The name of a field whose change the running guest has to be told of.
pub mod field {
    /// The VM's name, which is the guest's host name.
    pub const NAME: &str = "name";
    /// The size of the work disk.
    pub const DISK: &str = "disk";
}

/// What is to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Some of its fields.
    Set(VmSet),
    /// Its name.
    Name(String),
}

/// The VM as it shall be, and every field that is another then. Of what a running guest has to be told, the effect is that
/// of a guest that is not.
///
/// # Errors
/// [`SpecError`].
pub fn plan(current: &Definition, wanted: &Wanted, host: &Host) -> Result<(Definition, Vec<Change>), SpecError> {
    let mut next = current.clone();
    match wanted {
        Wanted::Name(name) => {
            spec::check_name(name)?;
            next.name.clone_from(name);
        }
        Wanted::Set(set) => apply(&mut next, set, host)?,
    }
    let changes = differences(current, &next);
    Ok((next, changes))
}

fn apply(next: &mut Definition, set: &VmSet, host: &Host) -> Result<(), SpecError> {
    if *set == VmSet::default() {
        return Err(SpecError::NoChange);
    }
    if let Some(cpus) = set.cpus {
        next.cpus = spec::check_cpus(cpus)?;
    }
    if let Some(memory) = set.memory {
        next.memory = spec::check_memory(memory, host)?;
    }
    if let Some(disk) = set.disk {
        let wanted = spec::check_disk(disk)?;
        if wanted < next.disk {
            return Err(SpecError::Shrink { has: next.disk, wanted });
        }
        next.disk = wanted;
    }
    for (name, value) in &set.env {
        match value {
            Some(value) => drop(next.env.insert(name.clone(), value.clone())),
            None => drop(next.env.remove(name)),
        }
    }
    spec::check_env(&next.env)?;
    match set.workdir.as_deref() {
        None => {}
        Some("") => next.workdir = None,
        Some(workdir) => {
            spec::check_workdir(workdir)?;
            next.workdir = Some(workdir.to_owned());
        }
    }
    if let Some(restart) = set.restart {
        if next.lifetime != Lifetime::Kept && restart != RestartPolicy::No {
            return Err(SpecError::RestartsRemoved);
        }
        next.restart = restart;
    }
    Ok(())
}

fn differences(from: &Definition, to: &Definition) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut compare = |field: &str, from: Option<String>, to: Option<String>, effect| {
        if from != to {
            changes.push(Change { field: field.to_owned(), from, to, effect, reason: None });
        }
    };
    compare(field::NAME, Some(from.name.clone()), Some(to.name.clone()), Effect::NextStart);
    compare("cpus", Some(from.cpus.to_string()), Some(to.cpus.to_string()), Effect::NextStart);
    compare("memory", Some(from.memory.to_string()), Some(to.memory.to_string()), Effect::NextStart);
    compare(field::DISK, Some(from.disk.to_string()), Some(to.disk.to_string()), Effect::NextStart);
    let names: std::collections::BTreeSet<&String> = from.env.keys().chain(to.env.keys()).collect();
    for name in names {
        compare(&format!("env.{name}"), from.env.get(name).cloned(), to.env.get(name).cloned(), Effect::Now);
    }
    compare("workdir", from.workdir.clone(), to.workdir.clone(), Effect::Now);
    let policy = |definition: &Definition| Some(definition.restart.as_str().to_owned());
    compare("restart", policy(from), policy(to), Effect::Now);
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::definition::VmRecord;

    const MIB: u64 = 1024 * 1024;

    fn vm() -> Definition {
        Definition {
            cpus: 2,
            memory: 1024 * MIB,
            disk: 8192 * MIB,
            env: [("A".to_owned(), "1".to_owned())].into(),
            workdir: Some("/srv".into()),
            ..VmRecord::sample("devbox", 1).definition
        }
    }

    fn set(change: impl FnOnce(&mut VmSet)) -> Result<(Definition, Vec<Change>), SpecError> {
        let mut set = VmSet::default();
        change(&mut set);
        plan(&vm(), &Wanted::Set(set), &Host { memory: 4096 * MIB })
    }

    #[test]
    fn each_field_says_when_it_takes_effect() {
        let (next, changes) = set(|set| {
            set.cpus = Some(4);
            set.memory = Some(2048 * MIB);
            set.disk = Some(9000 * MIB);
            set.env = [("A".to_owned(), None), ("B".to_owned(), Some("2".to_owned()))].into();
            set.workdir = Some(String::new());
            set.restart = Some(RestartPolicy::Always);
        })
        .unwrap();
        let told: Vec<_> = changes.iter().map(|change| (change.field.as_str(), change.effect)).collect();
        let expected = [
            ("cpus", Effect::NextStart),
            ("memory", Effect::NextStart),
            ("disk", Effect::NextStart),
            ("env.A", Effect::Now),
            ("env.B", Effect::Now),
            ("workdir", Effect::Now),
            ("restart", Effect::Now),
        ];
        assert_eq!(told, expected);
        assert_eq!((next.cpus, next.memory, next.disk), (4, 2048 * MIB, 9000 * MIB));
        assert_eq!((next.env, next.workdir), ([("B".to_owned(), "2".to_owned())].into(), None));
    }

    #[test]
    fn what_it_has_already_is_no_change_and_nothing_asked_for_is_refused() {
        assert_eq!(set(|set| set.cpus = Some(2)).unwrap().1, []);
        assert_eq!(set(|_| ()), Err(SpecError::NoChange));
    }

    #[test]
    fn what_no_machine_can_be_is_refused() {
        assert_eq!(set(|set| set.cpus = Some(0)), Err(SpecError::Cpus(0)));
        assert!(matches!(set(|set| set.memory = Some(1)), Err(SpecError::LittleMemory(_))));
        assert!(matches!(set(|set| set.memory = Some(u64::MAX)), Err(SpecError::MuchMemory { .. })));
        assert!(matches!(set(|set| set.disk = Some(MIB)), Err(SpecError::Shrink { .. })));
        assert!(matches!(set(|set| set.workdir = Some("here".into())), Err(SpecError::Workdir(_))));
        let bad = set(|set| set.env = [("a=b".to_owned(), Some(String::new()))].into());
        assert!(matches!(bad, Err(SpecError::Variable(_))));
    }

    #[test]
    fn a_vm_that_goes_when_it_stops_does_not_restart() {
        let ephemeral = Definition { lifetime: Lifetime::Command, ..vm() };
        let wanted = Wanted::Set(VmSet { restart: Some(RestartPolicy::Always), ..VmSet::default() });
        assert_eq!(plan(&ephemeral, &wanted, &Host { memory: 0 }), Err(SpecError::RestartsRemoved));
    }

    #[test]
    fn a_new_name_follows_the_rule() {
        let rename = |name: &str| plan(&vm(), &Wanted::Name(name.to_owned()), &Host { memory: 0 });
        assert_eq!(rename("web").unwrap().0, Definition { name: "web".into(), ..vm() });
        assert_eq!(rename("devbox").unwrap().1, []);
        assert!(matches!(rename("Web"), Err(SpecError::Name { .. })));
    }
}
