//! The caller's language and time zone, which its commands in a guest are to have too, as far as the guest can.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use banger_api::exec::{ExecRequest, TimeZone};

use crate::environment::Environment;

/// Where zones are, by name.
const ZONES: &str = "usr/share/zoneinfo";

/// The most that is read of a zone's file; real ones have up to 4 KiB.
const MAX_ZONE_FILE: u64 = 256 * 1024;

/// A request that carries both and nothing else.
pub fn request(environment: &Environment) -> ExecRequest {
    ExecRequest {
        locale: locale(environment),
        time_zone: time_zone(environment, Path::new("/")),
        ..ExecRequest::default()
    }
}

/// `LANG` and every `LC_` variable. What is not UTF-8 names no locale.
fn locale(environment: &Environment) -> BTreeMap<String, String> {
    let is_locale = |name: &str| name == "LANG" || name.starts_with("LC_");
    let text = environment.vars().filter_map(|(name, value)| Some((name.to_str()?, value.to_str()?)));
    text.filter(|(name, value)| is_locale(name) && !value.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The zone of `TZ`, else of `/etc/localtime`, below `root`; nothing where neither is there, which means UTC here as there.
fn time_zone(environment: &Environment, root: &Path) -> Option<TimeZone> {
    match environment.var("TZ") {
        Some(value) => of_variable(value.to_str()?, root),
        None => {
            let link = root.join("etc/localtime");
            let rule = rule_of(&link);
            let name = fs::read_link(&link).ok().and_then(|target| name_in(&target));
            (name.is_some() || rule.is_some()).then_some(TimeZone { name, rule })
        }
    }
}

/// `TZ` is a name, a file or a rule; a colon in front says that it is no rule (tzset(3)).
fn of_variable(value: &str, root: &Path) -> Option<TimeZone> {
    let plain = value.strip_prefix(':').unwrap_or(value);
    if plain.starts_with('/') {
        let file = root.join(plain.trim_start_matches('/'));
        return Some(TimeZone { name: name_in(Path::new(plain)), rule: rule_of(&file) });
    }
    let file = root.join(ZONES).join(plain);
    if file.is_file() {
        return Some(TimeZone { name: Some(plain.to_owned()), rule: rule_of(&file) });
    }
    // Either a rule or the name of a zone that only the guest may know.
    let rule = (plain == value).then(|| value.to_owned());
    Some(TimeZone { name: Some(plain.to_owned()), rule })
}

/// The part of a path that names a zone.
fn name_in(path: &Path) -> Option<String> {
    let path = path.to_str()?;
    let (_, name) = path.rsplit_once("/zoneinfo/")?;
    Some(name.to_owned())
}

/// The rule for the time after a zone's last transition: the file's last line (RFC 8536, 3.3). Files of version 1 have none.
fn rule_of(file: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(file).ok()?.take(MAX_ZONE_FILE).read_to_end(&mut bytes).ok()?;
    if !bytes.starts_with(b"TZif") || bytes.get(4).is_none_or(|version| *version < b'2') {
        return None;
    }
    let body = bytes.strip_suffix(b"\n")?;
    let start = body.iter().rposition(|&byte| byte == b'\n')? + 1;
    let rule = std::str::from_utf8(&body[start..]).ok()?;
    (!rule.is_empty() && rule.bytes().all(|byte| byte.is_ascii_graphic())).then(|| rule.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn with(vars: &[(&str, &str)]) -> Environment {
        let vars: Vec<_> = vars.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Environment::new(vars.into_iter(), "/bin/banger".into())
    }

    fn zones() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let europe = dir.path().join("usr/share/zoneinfo/Europe");
        fs::create_dir_all(&europe).unwrap();
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        // The head of a version 2 file, what a parser of version 1 reads, and the footer.
        fs::write(europe.join("Berlin"), b"TZif2...\n\0TZif2...\nCET-1CEST,M3.5.0,M10.5.0/3\n").unwrap();
        fs::write(europe.join("Old"), b"TZif\0...\nCET-1\n").unwrap();
        dir
    }

    fn zone(name: &str, rule: &str) -> Option<TimeZone> {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Some(TimeZone { name: some(name), rule: some(rule) })
    }

    #[test]
    fn the_variable_names_a_zone_a_file_or_a_rule() {
        let root = zones();
        let seen = |value: &str| time_zone(&with(&[("TZ", value)]), root.path());
        let berlin = zone("Europe/Berlin", "CET-1CEST,M3.5.0,M10.5.0/3");
        assert_eq!(seen("Europe/Berlin"), berlin);
        assert_eq!(seen(":Europe/Berlin"), berlin);
        assert_eq!(seen(":/usr/share/zoneinfo/Europe/Berlin"), berlin);
        assert_eq!(seen("Europe/Old"), zone("Europe/Old", ""));
        assert_eq!(seen("EST5EDT,M3.2.0,M11.1.0"), zone("EST5EDT,M3.2.0,M11.1.0", "EST5EDT,M3.2.0,M11.1.0"));
        assert_eq!(seen(":Asia/Tokyo"), zone("Asia/Tokyo", ""));
    }

    #[test]
    fn without_the_variable_it_is_the_systems_zone() {
        let root = zones();
        let localtime = root.path().join("etc/localtime");
        assert_eq!(time_zone(&with(&[]), root.path()), None);
        symlink("../usr/share/zoneinfo/Europe/Berlin", &localtime).unwrap();
        assert_eq!(time_zone(&with(&[]), root.path()), zone("Europe/Berlin", "CET-1CEST,M3.5.0,M10.5.0/3"));
        // A copy has no name.
        fs::remove_file(&localtime).unwrap();
        fs::copy(root.path().join("usr/share/zoneinfo/Europe/Berlin"), &localtime).unwrap();
        assert_eq!(time_zone(&with(&[]), root.path()), zone("", "CET-1CEST,M3.5.0,M10.5.0/3"));
    }

    #[test]
    fn locales_are_all_that_name_one() {
        let caller =
            with(&[("LANG", "de_DE.UTF-8"), ("LC_TIME", "C"), ("LC_ALL", ""), ("LANGUAGE", "de"), ("PATH", "/")]);
        let expected = [("LANG", "de_DE.UTF-8"), ("LC_TIME", "C")];
        assert_eq!(locale(&caller), expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }
}
