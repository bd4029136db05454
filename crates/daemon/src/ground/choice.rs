//! Which slots a daemon may take: any, or the one of its configuration.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{SLOTS, Slot};

/// The word that stands for a number in the configuration.
const AUTO: &str = "auto";

/// Which slots a daemon may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// The one that it had last, else the lowest free one.
    #[default]
    Auto,
    /// This one, for both the network and the user ids.
    Fixed(Slot),
}

impl Choice {
    /// The slots to try, in order; `had` is the one that the ground had last.
    pub fn candidates(self, had: Option<Slot>) -> Vec<Slot> {
        match self {
            Choice::Fixed(slot) => vec![slot],
            Choice::Auto => {
                let had = had.unwrap_or_default();
                std::iter::once(had).chain(Slot::all().filter(|slot| *slot != had)).collect()
            }
        }
    }

    /// The expected slot, before the daemon claims one.
    pub fn expected(self, had: Option<Slot>) -> Slot {
        match self {
            Choice::Fixed(slot) => slot,
            Choice::Auto => had.unwrap_or_default(),
        }
    }
}

impl Serialize for Choice {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Choice::Auto => to.serialize_str(AUTO),
            Choice::Fixed(slot) => to.serialize_u8(slot.number()),
        }
    }
}

impl<'de> Deserialize<'de> for Choice {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Choice, D::Error> {
        let value = toml::Value::deserialize(from)?;
        let slot = match &value {
            toml::Value::String(text) if text == AUTO => return Ok(Choice::Auto),
            toml::Value::Integer(number) => Slot::new(*number),
            _ => None,
        };
        let wrong = || format!("it is {value}, and can be \"{AUTO}\" or a number from 0 to {}", SLOTS - 1);
        slot.map(Choice::Fixed).ok_or_else(|| serde::de::Error::custom(wrong()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_slot_comes_first_and_a_fixed_one_alone() {
        let numbers = |slots: Vec<Slot>| slots.into_iter().map(Slot::number).collect::<Vec<_>>();
        assert_eq!(numbers(Choice::Auto.candidates(None))[..3], [0, 1, 2]);
        assert_eq!(numbers(Choice::Auto.candidates(Slot::new(2)))[..4], [2, 0, 1, 3]);
        assert_eq!(Choice::Auto.candidates(Slot::new(2)).len(), usize::from(SLOTS));
        assert_eq!(numbers(Choice::Fixed(Slot::new(3).unwrap()).candidates(Slot::new(2))), [3]);
    }
}
