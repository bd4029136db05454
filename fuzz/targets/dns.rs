//! DNS packets, as anybody on this host and every guest may send them: an answer is one to the question, and short.

#![no_main]

use std::cell::OnceCell;

use bangerd::dns::answer::{LONGEST, Reply, reply};
use bangerd::dns::zone::Zone;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static ZONE: OnceCell<Zone> = const { OnceCell::new() };
}

fn zone() -> Zone {
    Zone::new("vm", "10.77.0.0/24".parse().expect("a subnet")).with("devbox", [10, 77, 0, 2].into())
}

fuzz_target!(|packet: &[u8]| {
    let replied = ZONE.with(|known| reply(known.get_or_init(zone), packet));
    if let Reply::Answer(answer) = replied {
        assert!(answer.len() >= 12 && answer.len() <= usize::from(LONGEST), "{} bytes", answer.len());
        assert_eq!(answer[..2], packet[..2], "another question's number");
        assert_ne!(answer[2] & 0x80, 0, "an answer that is a question");
        // Nobody answers an answer.
        assert_eq!(ZONE.with(|known| reply(known.get_or_init(zone), &answer)), Reply::Silence);
    }
});
