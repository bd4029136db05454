//! Rules of others', and banger's among them.

use super::*;

#[test]
fn guests_reach_the_world_past_chains_that_drop() {
    for (drops, rules) in [(DROPS, 2), (DROPS_BUT_FOR_USERS, 2), (REJECTS, 2), ("true", 0)] {
        elsewhere_bridged_either_way(async || {
            let place = place(Reach::Everybody, drops).await;
            looked_after(place.network()).await;
            assert!(place.flows().await, "{drops}");
            assert_eq!(placed().await, rules, "{drops}");
            let users = sh("nft list chain ip filter DOCKER-USER 2>/dev/null || :").await;
            assert_eq!(users.contains("comment \"banger\""), drops == DROPS_BUT_FOR_USERS, "{users}");
        });
    }
}

#[test]
fn those_chains_let_nothing_through_that_banger_drops() {
    elsewhere_bridged_either_way(async || {
        let mut place = place(Reach::Everybody, DROPS).await;
        assert!(place.flows().await);
        let guest = format!("ping -n -c 1 -w 1 {}", Ipv4Addr::from_bits(place.subnet.host().to_bits() + 1));
        assert!(!place.in_world(&guest).await, "the world begins");
        // The same packets pass where banger does not drop: it is not the way that is missing.
        place.network = None;
        sh("nft insert rule inet banger forward oifname banger0 accept").await;
        assert!(place.in_world(&guest).await);
    });
    elsewhere_bridged_either_way(async || {
        let mut place = place(Reach::Names, DROPS).await;
        looked_after(place.network()).await;
        assert_eq!(placed().await, 2);
        assert!(!place.flows().await);
        place.network = None;
        sh("for way in iifname oifname; do nft insert rule inet banger forward $way banger0 accept; done").await;
        assert!(place.flows().await);
    });
}

#[test]
fn guests_are_told_names_by_a_host_that_takes_nothing() {
    elsewhere(async || {
        let place = place(Reach::Everybody, "iptables -P INPUT DROP").await;
        looked_after(place.network()).await;
        let host = place.subnet.host();
        let udp = |port| UdpSocket::bind((host, port)).unwrap();
        let (names, other) = (udp(53), udp(54));
        let _tcp = [53u16, 54].map(|port| TcpListener::bind((host, port)).unwrap());
        let connects =
            async |port| place.in_guest(&format!("timeout 1 bash -c 'exec 3<>/dev/tcp/{host}/{port}'")).await;
        assert!(connects(53).await && !connects(54).await);
        for port in [54, 53] {
            assert!(place.in_guest(&format!("echo name >/dev/udp/{host}/{port}")).await);
        }
        let mut packet = [0; 8];
        names.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(names.recv(&mut packet).unwrap(), 5);
        // What came first would be there by now.
        other.set_nonblocking(true).unwrap();
        assert!(other.recv(&mut packet).is_err());
    });
}

/// Has others change something, and all as it has to be soon after; with so many rules in others' tables.
async fn is_mended(place: &Place, changes: &[(&str, usize)]) {
    let own = async || {
        let all = rules().await;
        let all = all["nftables"].as_array().unwrap().iter();
        all.filter(|entry| entry.to_string().contains(r#""table":"banger""#))
            .map(Value::to_string)
            .collect::<BTreeSet<_>>()
    };
    looked_after(place.network()).await;
    assert!(place.flows().await);
    let before = own().await;
    for (change, expected) in changes {
        sh(change).await;
        let mended = async { while own().await != before || placed().await != *expected {} };
        let mended = tokio::time::timeout(SOON, mended).await;
        assert!(mended.is_ok() && place.flows().await, "{change}");
    }
}

#[test]
fn what_others_flush_or_make_anew_is_mended_soon() {
    elsewhere_bridged_either_way(async || {
        let place = place(Reach::Everybody, DROPS).await;
        let changes = [
            ("nft flush ruleset", 0),
            (DROPS, 2),
            (&format!("nft flush ruleset; {DROPS_BUT_FOR_USERS}"), 2),
            (&format!("nft delete table ip filter; {DROPS}"), 2),
            (&format!("nft delete table ip filter; {DROPS_BUT_FOR_USERS}"), 2),
            (&format!("nft delete table ip filter; {REJECTS}"), 2),
        ];
        is_mended(&place, &changes).await;
    });
}

#[test]
fn iptables_works_with_what_is_in_its_chains() {
    elsewhere(async || {
        let place = place(Reach::Everybody, &format!("{DROPS_BUT_FOR_USERS}; iptables -P INPUT DROP")).await;
        is_mended(
            &place,
            &[("iptables -F DOCKER-USER", 4), ("iptables -F FORWARD", 4), ("iptables -P INPUT ACCEPT", 2)],
        )
        .await;
        // Without a way to its users' chain, they are at the head of Docker's own.
        let rules = sh("iptables -S FORWARD").await;
        assert!(rules.contains("-A FORWARD -i banger0 -m comment --comment banger -j ACCEPT"), "{rules}");
        sh("iptables -L -v; iptables-save >/dev/null; iptables -A FORWARD -i x -j DROP; iptables -D FORWARD -i x -j DROP").await;
        is_mended(
            &place,
            &[
                ("iptables-save | { rules=$(cat); echo \"$rules\" | iptables-restore; }", 0),
                ("iptables -P FORWARD ACCEPT", 0),
            ],
        )
        .await;
    });
}

#[test]
fn what_others_do_to_bangers_own_tables_is_mended_soon() {
    elsewhere(async || {
        let place = place(Reach::Everybody, DROPS).await;
        let changes = [
            ("nft flush chain inet banger to_world", 2),
            ("nft insert rule inet banger forward drop", 2),
            ("nft flush set bridge banger pinned", 2),
            ("nft add element inet banger isolated { 10.137.77.2 }", 2),
            ("nft delete table bridge banger", 2),
        ];
        is_mended(&place, &changes).await;
    });
}
