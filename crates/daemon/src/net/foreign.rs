//! What other programs' chains would drop of guests' packets, and the rules that keep them from it. Pure.
//!
//! An accept in one chain does not overrule a drop in another (nft(8)), so what is to pass has to be accepted in each chain that
//! drops: Docker's, firewalld's, a user's own. banger's chain comes first and has dropped by then what must not pass, so that
//! here it is enough to accept what comes from the bridge or goes to it. Of what goes to the host itself only questions for
//! names are let through; the rest is the user's to decide.
//!
//! The rules have the form that iptables-nft gives to its own, so that it still lists and changes what is around them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::listing::{Base, Chain, Listing, Rule};
use crate::ground::Slot;

/// Where Docker wants the rules of others: it leaves this chain alone.
const USERS_OF_DOCKER: &str = "DOCKER-USER";

/// What is to be done to one table of somebody else's, as one transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The table, with its family.
    pub table: String,
    /// What nft is told, in its JSON.
    pub commands: Value,
}

/// What is to be done so that in others' chains are the rules that are needed there and none else of banger's; nothing where all is
/// so. Where guests are not `wanted`, none is needed.
pub fn changes(listing: &Listing, slot: Slot, wanted: bool) -> Vec<Change> {
    let (bridge, comment) = (slot.bridge(), slot.table());
    let mut needed: BTreeMap<usize, Vec<Value>> = BTreeMap::new();
    for (at, chain) in listing.chains.iter().enumerate().filter(|_| wanted) {
        if let Some((at, shapes)) = needs(listing, at, chain, &bridge) {
            let known = needed.entry(at).or_default();
            known.extend(shapes.into_iter().filter(|shape| !known.contains(shape)).collect::<Vec<_>>());
        }
    }
    let every: Vec<Value> = ["forward", "input"].into_iter().flat_map(|hook| shapes(hook, &bridge)).collect();
    let mut changes: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (at, chain) in listing.chains.iter().enumerate().filter(|(_, chain)| chain.slot().is_none()) {
        let mut missing = needed.remove(&at).unwrap_or_default();
        let mut commands = Vec::new();
        for rule in &chain.rules {
            let steps = Value::from(bare(rule));
            if let Some(at) = missing.iter().position(|shape| *shape == steps) {
                missing.remove(at);
            } else if is_ours(rule, &comment) && every.contains(&steps) {
                commands.push(json!({"delete": {"rule": placed(chain, &[("handle", rule.handle.into())])}}));
            }
        }
        // Each goes to the head.
        for shape in missing.into_iter().rev() {
            let rule = placed(chain, &[("comment", comment.as_str().into()), ("expr", counted(shape))]);
            commands.push(json!({"insert": {"rule": rule}}));
        }
        if !commands.is_empty() {
            changes.entry(format!("{} {}", chain.family, chain.table)).or_default().extend(commands);
        }
    }
    let change = |(table, commands)| Change { table, commands: json!({"nftables": Value::Array(commands)}) };
    changes.into_iter().map(change).collect()
}

/// Where rules are needed because of this chain, and which.
fn needs(listing: &Listing, at: usize, chain: &Chain, bridge: &str) -> Option<(usize, Vec<Value>)> {
    let Base { kind, hook, .. } = chain.base.as_ref()?;
    let concerns = kind == "filter" && matches!(chain.family.as_str(), "ip" | "inet") && chain.slot().is_none();
    if !concerns || !drops(chain) {
        return None;
    }
    let is_users = |other: &Chain| {
        (&other.family, &other.table, other.name.as_str()) == (&chain.family, &chain.table, USERS_OF_DOCKER)
    };
    let goes_there = || chain.rules.iter().any(|rule| rule.steps == [json!({"jump": {"target": USERS_OF_DOCKER}})]);
    let users = listing.chains.iter().position(is_users).filter(|_| hook == "forward" && goes_there());
    Some((users.unwrap_or(at), shapes(hook, bridge)))
}

/// Whether a packet that no other rule decides about is lost: by the chain's policy, or by its last rule.
fn drops(chain: &Chain) -> bool {
    let by_policy = chain.base.as_ref().is_some_and(|base| base.policy == "drop");
    by_policy
        || chain.rules.last().is_some_and(|rule| rule.steps.iter().any(is_end) && rule.steps.iter().all(is_certain))
}

/// Whether a step is the end of every packet. An extension of iptables has no name in some versions of nft; as the last and only
/// step of a chain it is a refusal, if it is anything.
fn is_end(step: &Value) -> bool {
    let refuses = |target: &Value| target.is_null() || matches!(target["name"].as_str(), Some("REJECT" | "DROP"));
    step.get("drop").is_some() || step.get("reject").is_some() || step.get("xt").is_some_and(refuses)
}

/// Whether a step lets every packet go on to the next, or ends it.
fn is_certain(step: &Value) -> bool {
    step.get("log").is_some() || is_end(step)
}

/// What the rules do in a chain of this hook, but for counting.
fn shapes(hook: &str, bridge: &str) -> Vec<Value> {
    let is = |left: Value, right: Value| json!({"match": {"op": "==", "left": left, "right": right}});
    let link = |key: &str| is(json!({"meta": {"key": key}}), bridge.into());
    let accept = json!({"accept": null});
    match hook {
        "forward" => ["iifname", "oifname"].map(|key| json!([link(key), accept])).to_vec(),
        "input" => ["udp", "tcp"]
            .map(|protocol| {
                let port = is(json!({"payload": {"protocol": protocol, "field": "dport"}}), 53.into());
                json!([link("iifname"), port, accept])
            })
            .to_vec(),
        _ => Vec::new(),
    }
}

fn counted(shape: Value) -> Value {
    let Value::Array(mut steps) = shape else { return shape };
    steps.insert(steps.len().saturating_sub(1), json!({"counter": null}));
    steps.into()
}

/// Whether a rule's comment says that it is this daemon's. A rule that iptables-restore(8) has made again has lost the comment
/// for nft: it works as well, and belongs to the user who saved it.
fn is_ours(rule: &Rule, comment: &str) -> bool {
    rule.comment.as_deref() == Some(comment)
}

/// What a rule does, without what iptables-restore(8) makes of its comment.
fn bare(rule: &Rule) -> Vec<Value> {
    let is_comment = |step: &&Value| step["xt"]["name"].as_str() == Some("comment");
    rule.steps.iter().filter(|step| !is_comment(step)).cloned().collect()
}

fn placed(chain: &Chain, more: &[(&str, Value)]) -> Value {
    let mut rule = json!({"family": chain.family, "table": chain.table, "chain": chain.name});
    for (key, value) in more {
        rule[key] = value.clone();
    }
    rule
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(family: &str, table: &str, name: &str, hook: &str, policy: &str) -> Value {
        json!({"chain": {"family": family, "table": table, "name": name, "type": "filter", "hook": hook, "prio": 0, "policy": policy}})
    }

    fn rule(family: &str, table: &str, chain: &str, steps: Value) -> Value {
        json!({"rule": {"family": family, "table": table, "chain": chain, "handle": 7, "expr": steps}})
    }

    fn listing(entries: &[Value]) -> Listing {
        Listing::parse(&json!({"nftables": entries}).to_string()).unwrap()
    }

    /// The chains in which something is done, each as often as that.
    fn touched(entries: &[Value], wanted: bool) -> Vec<String> {
        let mut touched = Vec::new();
        for change in changes(&listing(entries), Slot::FIRST, wanted) {
            for command in change.commands["nftables"].as_array().unwrap() {
                let (verb, what) = command.as_object().unwrap().iter().next().unwrap();
                let rule = &what["rule"];
                let word = |key: &str| rule[key].as_str().unwrap().to_owned();
                touched.push(format!("{verb} {} {} {}", word("family"), word("table"), word("chain")));
            }
        }
        touched
    }

    /// The same rules as banger makes them, as nft lists them.
    fn ours(family: &str, table: &str, chain: &str, hook: &str) -> Vec<Value> {
        let listed = |shape| {
            let mut rule = rule(family, table, chain, counted(shape));
            rule["rule"]["comment"] = "banger".into();
            rule
        };
        shapes(hook, "banger0").into_iter().map(listed).collect()
    }

    #[test]
    fn what_drops_by_policy_or_by_its_last_rule_gets_two_rules() {
        let by_policy = [base("ip", "filter", "FORWARD", "forward", "drop")];
        assert_eq!(touched(&by_policy, true), ["insert ip filter FORWARD"; 2]);
        for last in [
            json!([{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}]),
            json!([{"counter": {"packets": 0, "bytes": 0}}, {"drop": null}]),
            json!([{"log": null}, {"drop": null}]),
            json!([{"xt": {"type": "target", "name": "REJECT"}}]),
            json!([{"xt": null}]),
        ] {
            let chain =
                [base("inet", "firewalld", "f", "forward", "accept"), rule("inet", "firewalld", "f", last.clone())];
            assert_eq!(touched(&chain, true), ["insert inet firewalld f"; 2], "{last}");
        }
    }

    #[test]
    fn what_drops_nothing_or_is_not_of_this_kind_stays_as_it_is() {
        let link = json!({"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth0"}});
        for last in [
            json!([{"accept": null}]),
            json!([link, {"drop": null}]),
            json!([{"limit": {"rate": 1}}, {"drop": null}]),
            json!([{"xt": {"type": "match", "name": "conntrack"}}, {"drop": null}]),
            json!([{"xt": {"type": "target", "name": "LOG"}}]),
            json!([{"jump": {"target": "x"}}]),
        ] {
            let chain =
                [base("ip", "filter", "FORWARD", "forward", "accept"), rule("ip", "filter", "FORWARD", last.clone())];
            assert_eq!(touched(&chain, true), [""; 0], "{last}");
        }
        let mut nat = base("ip", "nat", "c", "forward", "drop");
        nat["chain"]["type"] = "nat".into();
        let others = [
            nat,
            base("ip6", "filter", "FORWARD", "forward", "drop"),
            base("bridge", "filter", "FORWARD", "forward", "drop"),
            base("ip", "filter", "OUTPUT", "output", "drop"),
            base("inet", "banger", "forward", "forward", "drop"),
            json!({"chain": {"family": "ip", "table": "filter", "name": "x"}}),
        ];
        assert_eq!(touched(&others, true), [""; 0]);
    }

    #[test]
    fn dockers_users_have_their_own_chain_as_long_as_packets_come_there() {
        let jump = rule("ip", "filter", "FORWARD", json!([{"counter": {}}, {"jump": {"target": "DOCKER-USER"}}]));
        let users = json!({"chain": {"family": "ip", "table": "filter", "name": "DOCKER-USER"}});
        let mut chains = vec![base("ip", "filter", "FORWARD", "forward", "drop"), users, jump];
        assert_eq!(touched(&chains, true), ["insert ip filter DOCKER-USER"; 2]);
        // Those at the head of the chain from before Docker came go.
        chains.extend(ours("ip", "filter", "FORWARD", "forward"));
        let moved = ["delete ip filter FORWARD"; 2].into_iter().chain(["insert ip filter DOCKER-USER"; 2]);
        assert_eq!(touched(&chains, true), moved.collect::<Vec<_>>());
        chains.truncate(2);
        assert_eq!(touched(&chains, true), ["insert ip filter FORWARD"; 2]);
    }

    #[test]
    fn none_is_made_twice_and_all_go_when_nobody_wants_them() {
        let mut chains =
            vec![base("ip", "filter", "FORWARD", "forward", "drop"), base("ip", "filter", "INPUT", "input", "drop")];
        assert_eq!(touched(&chains, true).len(), 4);
        chains.extend(ours("ip", "filter", "FORWARD", "forward"));
        chains.extend(ours("ip", "filter", "INPUT", "input"));
        assert_eq!(touched(&chains, true), [""; 0]);
        let gone = ["delete ip filter FORWARD"; 2].into_iter().chain(["delete ip filter INPUT"; 2]);
        assert_eq!(touched(&chains, false), gone.clone().collect::<Vec<_>>());
        // So do those in a chain that drops nothing any more, and second ones.
        chains[0]["chain"]["policy"] = "accept".into();
        assert_eq!(touched(&chains, true), ["delete ip filter FORWARD"; 2]);
        chains.extend(ours("ip", "filter", "INPUT", "input"));
        assert_eq!(touched(&chains, true).len(), 4);
    }

    #[test]
    fn what_others_made_stays_whatever_it_says() {
        let chain = base("ip", "filter", "FORWARD", "forward", "accept");
        let mut other = rule("ip", "filter", "FORWARD", json!([{"accept": null}]));
        other["rule"]["comment"] = "banger".into();
        let mut like_ours = ours("ip", "filter", "FORWARD", "forward").remove(0);
        like_ours["rule"]["comment"] = "mine".into();
        assert_eq!(touched(&[chain, other, like_ours], false), [""; 0]);
    }

    #[test]
    fn what_iptables_has_restored_serves_and_stays() {
        let mut chains = vec![base("ip", "filter", "FORWARD", "forward", "drop")];
        for shape in shapes("forward", "banger0") {
            let Value::Array(mut steps) = shape else { panic!("{shape}") };
            steps.insert(1, json!({"xt": {"type": "match", "name": "comment"}}));
            chains.push(rule("ip", "filter", "FORWARD", steps.into()));
        }
        assert_eq!(touched(&chains, true), [""; 0]);
        assert_eq!(touched(&chains, false), [""; 0]);
    }

    #[test]
    fn rules_and_tables_of_other_grounds_stay() {
        let mut chains = vec![base("ip", "filter", "FORWARD", "forward", "drop")];
        chains.extend(ours("ip", "filter", "FORWARD", "forward"));
        // Another slot's own rules, no matter what happens to those of slot 0.
        let mut theirs = chains.clone();
        for rule in &mut theirs[1..] {
            let text = rule
                .to_string()
                .replace("banger0", "banger3")
                .replace("\"comment\":\"banger\"", "\"comment\":\"banger3\"");
            *rule = serde_json::from_str(&text).unwrap();
        }
        chains.extend(theirs.drain(1..));
        assert_eq!(touched(&chains, true), [""; 0]);
        assert_eq!(touched(&chains, false), ["delete ip filter FORWARD"; 2]);
        let drop = rule("inet", "banger3", "f", json!([{"drop": null}]));
        assert_eq!(touched(&[base("inet", "banger3", "f", "forward", "drop"), drop], true), [""; 0]);
    }

    #[test]
    fn tables_are_changed_one_by_one() {
        let chains = [base("ip", "filter", "FORWARD", "forward", "drop"), base("inet", "fw", "f", "forward", "drop")];
        let changes = changes(&listing(&chains), Slot::FIRST, true);
        let tables: Vec<_> = changes.iter().map(|change| change.table.as_str()).collect();
        assert_eq!(tables, ["inet fw", "ip filter"]);
    }
}
