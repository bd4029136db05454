//! What nft(8) says of all rules, as far as it matters here (libnftables-json(5)). Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use super::ruleset::{Lease, Reach};
use crate::ground::Slot;

/// Why what nft says cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("what nft lists makes no sense: {0}")]
pub struct ListingError(String);

/// Chains with their rules, in their order, and elements of sets.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Listing {
    /// The chains.
    pub chains: Vec<Chain>,
    /// The elements of all sets: the family, the set's name, and the parts of one.
    elements: BTreeSet<(String, String, Vec<String>)>,
}

/// A chain.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    /// The family that its table is of.
    pub family: String,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Where packets enter it; nothing for one that others jump to.
    pub base: Option<Base>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// Where packets enter a chain.
#[derive(Debug, Clone, PartialEq)]
pub struct Base {
    /// What the chain is for, as `filter`.
    pub kind: String,
    /// The hook, as `forward`.
    pub hook: String,
    /// Among those of the same hook, the least first.
    pub priority: i64,
    /// What happens to a packet that no rule decides about.
    pub policy: String,
}

/// A rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// The kernel's number for it.
    pub handle: u64,
    /// What its maker says about it.
    pub comment: Option<String>,
    /// What it does, step by step, but for counting.
    pub steps: Vec<Value>,
}

impl Listing {
    /// Reads what `nft -j list` says.
    ///
    /// # Errors
    /// [`ListingError`].
    pub fn parse(text: &str) -> Result<Listing, ListingError> {
        let said: Value = serde_json::from_str(text).map_err(|error| ListingError(error.to_string()))?;
        let entries = said["nftables"].as_array().ok_or_else(|| ListingError("it has no `nftables`".to_owned()))?;
        let mut listing = Listing::default();
        for entry in entries {
            if let Some(chain) = entry.get("chain") {
                listing.chains.push(chain_of(chain)?);
            } else if let Some(rule) = entry.get("rule") {
                let (family, table, name) =
                    (text_of(rule, "family")?, text_of(rule, "table")?, text_of(rule, "chain")?);
                let is_its = |chain: &&mut Chain| chain.family == family && chain.table == table && chain.name == name;
                let chain = listing.chains.iter_mut().find(is_its);
                let chain = chain.ok_or_else(|| ListingError(format!("a rule is in no chain {name}")))?;
                chain.rules.push(rule_of(rule)?);
            } else if let Some(set) = entry.get("set") {
                let (family, name) = (text_of(set, "family")?, text_of(set, "name")?);
                for element in set["elem"].as_array().into_iter().flatten() {
                    listing.elements.insert((family.clone(), name.clone(), parts(element)));
                }
            }
        }
        Ok(listing)
    }

    /// Two listings in one.
    #[must_use]
    pub fn and(mut self, other: Listing) -> Listing {
        self.chains.extend(other.chains);
        self.elements.extend(other.elements);
        self
    }

    /// Whether the elements of all sets are those of these leases and no others.
    pub fn has_exactly(&self, leases: &[Lease]) -> bool {
        self.elements == leases.iter().flat_map(elements).collect()
    }

    /// The elements that are no lease's, and those of leases that are not there, as a person reads them.
    pub fn compared(&self, slot: Slot, leases: &[Lease]) -> (Vec<String>, Vec<String>) {
        let wanted: BTreeSet<_> = leases.iter().flat_map(elements).collect();
        let table = slot.table();
        let told = |(family, set, parts): &(String, String, Vec<String>)| {
            format!("{} in the set {set} of the table {family} {table}", parts.join(" . "))
        };
        let beyond = self.elements.difference(&wanted).map(told).collect();
        (beyond, wanted.difference(&self.elements).map(told).collect())
    }

    /// The chains that are not the same there, or are only in one of the two, with their families.
    pub fn chains_unlike(&self, other: &Listing) -> Vec<String> {
        let known = |chain: &Chain, listing: &Listing| listing.chains.iter().any(|other| is_same(chain, other));
        let unlike = self.chains.iter().filter(|chain| !known(chain, other));
        let unlike = unlike.chain(other.chains.iter().filter(|chain| !known(chain, self)));
        unlike
            .map(|chain| format!("{} {} {}", chain.family, chain.table, chain.name))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// Whether it has the same chains with the same rules, whatever their numbers are.
    pub fn has_the_rules_of(&self, other: &Listing) -> bool {
        self.chains.len() == other.chains.len()
            && self.chains.iter().all(|one| other.chains.iter().any(|two| is_same(one, two)))
    }
}

/// Whether two chains do the same, whatever the numbers of their rules are.
fn is_same(one: &Chain, two: &Chain) -> bool {
    let rules = |chain: &Chain| chain.rules.iter().map(|rule| rule.steps.clone()).collect::<Vec<_>>();
    (&one.family, &one.name, &one.base) == (&two.family, &two.name, &two.base) && rules(one) == rules(two)
}

impl Chain {
    /// The slot of the ground that owns the table: this daemon's or another's.
    pub fn slot(&self) -> Option<Slot> {
        Slot::of_table(&self.table).filter(|_| matches!(self.family.as_str(), "bridge" | "inet"))
    }
}

/// The elements that a lease is, as they are listed.
fn elements(lease: &Lease) -> Vec<(String, String, Vec<String>)> {
    let Lease { tap, mac, address, reach } = lease;
    let element = |family: &str, set: &str, parts: Vec<String>| (family.to_owned(), set.to_owned(), parts);
    let (mac, address) = (mac.to_string(), address.to_string());
    let mut elements = vec![
        element("bridge", "pinned", vec![tap.clone(), mac.clone(), address.clone()]),
        element("bridge", "guests", vec![tap.clone(), mac]),
    ];
    if *reach == Reach::Names {
        elements.push(element("bridge", "isolated", vec![tap.clone()]));
        elements.push(element("inet", "isolated", vec![address]));
    }
    elements
}

/// A concatenation's parts; one of another form is what it is, and no lease's.
fn parts(element: &Value) -> Vec<String> {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match element["concat"].as_array() {
        Some(parts) => parts.iter().map(word).collect(),
        None => vec![word(element)],
    }
}

fn chain_of(said: &Value) -> Result<Chain, ListingError> {
    let base = match said.get("hook") {
        Some(_) => Some(Base {
            kind: text_of(said, "type")?,
            hook: text_of(said, "hook")?,
            priority: said["prio"].as_i64().unwrap_or_default(),
            policy: said["policy"].as_str().unwrap_or("accept").to_owned(),
        }),
        None => None,
    };
    Ok(Chain {
        family: text_of(said, "family")?,
        table: text_of(said, "table")?,
        name: text_of(said, "name")?,
        base,
        rules: Vec::new(),
    })
}

fn rule_of(said: &Value) -> Result<Rule, ListingError> {
    let handle = said["handle"].as_u64().ok_or_else(|| ListingError("a rule has no handle".to_owned()))?;
    let steps = said["expr"].as_array().map(Vec::as_slice).unwrap_or_default();
    let steps = steps.iter().filter(|step| step.get("counter").is_none()).cloned().collect();
    Ok(Rule { handle, comment: said["comment"].as_str().map(str::to_owned), steps })
}

fn text_of(said: &Value, key: &str) -> Result<String, ListingError> {
    said[key].as_str().map(str::to_owned).ok_or_else(|| ListingError(format!("something has no {key}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::addresses;
    use serde_json::json;
    use std::net::Ipv4Addr;

    fn rule(handle: u64, steps: &Value) -> Value {
        json!({"rule": {"family": "inet", "table": "banger", "chain": "c", "handle": handle, "expr": steps}})
    }

    fn listing(entries: &[Value]) -> Listing {
        Listing::parse(&json!({"nftables": entries}).to_string()).unwrap()
    }

    fn lease(reach: Reach) -> Lease {
        let address = Ipv4Addr::new(10, 77, 0, 2);
        Lease { tap: "tap-pool-0".to_owned(), mac: addresses::mac(address), address, reach }
    }

    #[test]
    fn what_is_no_listing_is_an_error() {
        for text in ["", "table ip x {", "{}", r#"{"nftables": 1}"#, r#"{"nftables": [{"chain": {}}]}"#] {
            assert!(Listing::parse(text).is_err(), "{text}");
        }
        let lost = json!({"nftables": [rule(1, &json!([]))]}).to_string();
        assert_eq!(Listing::parse(&lost), Err(ListingError("a rule is in no chain c".to_owned())));
        // What is not known is passed over.
        let other = json!({"nftables": [{"metainfo": {}}, {"flowtable": {"family": "ip"}}, {"chain": {"family": "ip", "table": "t", "name": "c"}}]});
        assert_eq!(Listing::parse(&other.to_string()).unwrap().chains.len(), 1);
    }

    #[test]
    fn the_same_rules_have_other_numbers_and_counts() {
        let chain = json!({"chain": {"family": "inet", "table": "banger", "name": "c", "type": "filter", "hook": "forward", "prio": -10, "policy": "accept"}});
        let counted = |packets: u64| json!([{"counter": {"packets": packets, "bytes": 9}}, {"accept": null}]);
        let one = listing(&[chain.clone(), rule(3, &counted(1))]);
        assert!(one.has_the_rules_of(&listing(&[chain.clone(), rule(7, &counted(5))])));
        for other in [
            vec![],
            vec![chain.clone()],
            vec![chain.clone(), rule(3, &json!([{"drop": null}]))],
            vec![chain.clone(), rule(3, &counted(1)), rule(4, &counted(1))],
        ] {
            assert!(!one.has_the_rules_of(&listing(&other)) && !listing(&other).has_the_rules_of(&one), "{other:?}");
        }
    }

    #[test]
    fn a_lease_is_its_elements() {
        let set = |family: &str, name: &str, elements: Value| json!({"set": {"family": family, "table": "banger", "name": name, "elem": elements}});
        let pinned = set("bridge", "pinned", json!([{"concat": ["tap-pool-0", "02:62:0a:4d:00:02", "10.77.0.2"]}]));
        let guests = set("bridge", "guests", json!([{"concat": ["tap-pool-0", "02:62:0a:4d:00:02"]}]));
        assert!(listing(&[]).has_exactly(&[]) && !listing(&[]).has_exactly(&[lease(Reach::Everybody)]));
        assert!(!listing(std::slice::from_ref(&pinned)).has_exactly(&[lease(Reach::Everybody)]));
        let one = listing(&[pinned, guests]);
        assert!(one.has_exactly(&[lease(Reach::Everybody)]) && !one.has_exactly(&[lease(Reach::Names)]));
        assert!(!one.has_exactly(&[]));
        let apart = [set("bridge", "isolated", json!(["tap-pool-0"])), set("inet", "isolated", json!(["10.77.0.2"]))];
        let two = one.clone().and(listing(&apart));
        assert!(two.has_exactly(&[lease(Reach::Names)]) && !two.has_exactly(&[lease(Reach::Everybody)]));
        assert!(
            !one.and(listing(&[set("inet", "isolated", json!([{"range": [1, 2]}]))]))
                .has_exactly(&[lease(Reach::Everybody)])
        );
    }
}
