//! Reports tests that cannot run here, with name and reason. libtest counts a test that returns early as passed and
//! hides its output. scripts/test names a file in `BANGER_TEST_SKIPPED`, and counts the test of each line in it as
//! skipped. A line with a name that no test has counts as a failure.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;

/// Reports that the running test, or a part of it, cannot run here; takes the reason as `format!` does.
#[macro_export]
macro_rules! skipped {
    ($($reason:tt)+) => {
        $crate::report(module_path!(), &format_args!($($reason)+))
    };
}

/// The function behind [`skipped!`].
#[doc(hidden)]
pub fn report(module: &str, reason: &dyn Display) {
    // libtest names each test's thread after the test; tests that start threads pass their name on.
    let thread = std::thread::current();
    let line = line(module, thread.name(), &reason.to_string());
    eprint!("SKIPPED {line}");
    #[expect(clippy::disallowed_methods, reason = "tests have no main.rs that reads the environment for them")]
    let Some(path) = std::env::var_os("BANGER_TEST_SKIPPED") else { return };
    // One write, because other tests of this program append at the same time.
    let written = OpenOptions::new().append(true).open(&path).and_then(|mut file| file.write_all(line.as_bytes()));
    written.unwrap_or_else(|error| panic!("cannot note in {} what is skipped: {error}", path.display()));
}

/// The crate, the test and the reason, on one line.
fn line(module: &str, thread: Option<&str>, reason: &str) -> String {
    let program = module.split("::").next().unwrap_or(module);
    // A thread without a name of its own is none of libtest's: a test started it, or it runs without libtest.
    let test = thread.filter(|name| !name.is_empty() && *name != "main").unwrap_or(module);
    format!("{program} {test}: {}\n", reason.replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn a_skipped_test_is_one_line() {
        let test = std::thread::current();
        assert_eq!(
            line(module_path!(), test.name(), "no network:\nnot root"),
            "banger_skip tests::a_skipped_test_is_one_line: no network: not root\n"
        );
        assert_eq!(line("bangerd::net", None, "why"), "bangerd bangerd::net: why\n");
    }
}
