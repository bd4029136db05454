//! The configuration: any text is one, or an error of one line; what it says can be used without overflow.

#![no_main]

use std::path::Path;

use bangerd::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| match Config::parse(text, Path::new("config.toml")) {
    Ok(config) => {
        let sizes = [config.memory(), config.disk(), config.image_size(), config.seed_size()];
        let times = [config.timeouts.agent(), config.timeouts.stop(), config.timeouts.button()];
        assert!(sizes.iter().all(|size| size % (1024 * 1024) == 0), "{sizes:?}");
        for time in times {
            // A deadline is made of it.
            let _deadline: Option<std::time::Instant> = std::time::Instant::now().checked_add(time);
        }
    }
    Err(error) => {
        let line = error.to_string();
        assert!(!line.contains(char::is_control), "{line:?} is more than a line");
    }
});
