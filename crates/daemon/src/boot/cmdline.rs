//! The kernel's command line. Pure.

/// Words for every guest, each with its reason.
const WORDS: [&str; 7] = [
    // Each line that the kernel prints to a serial console costs a trap per character.
    "quiet",
    "loglevel=3",
    // A guest that panics ends its VMM at once (QEMU runs with `-no-reboot`): the daemon sees that instead of a hang.
    "panic=-1",
    // The host's clock is steady; the watchdog that compares it with others takes seconds of a slow boot.
    "tsc=reliable",
    // A virtual timer works; the test waits for ten ticks of it.
    "no_timer_check",
    // One tenant per guest: what the kernel would protect it from is itself.
    "mitigations=off",
    // The processor's random numbers count, so that nothing waits for entropy at boot.
    "random.trust_cpu=on",
];

/// The command line of a guest, with its console if it has one (`ttyS0`, `hvc0`).
pub fn cmdline(console: Option<&str>) -> String {
    let mut line = WORDS.join(" ");
    if let Some(console) = console {
        line.push_str(" console=");
        line.push_str(console);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_is_named_only_where_there_is_one() {
        assert!(!cmdline(None).contains("console"));
        assert!(cmdline(Some("hvc0")).ends_with(" console=hvc0"));
    }

    #[test]
    fn the_kernel_would_take_it() {
        // COMMAND_LINE_SIZE of x86.
        assert!(cmdline(Some("ttyS0")).len() < 2048);
    }
}
