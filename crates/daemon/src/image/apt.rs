//! Where this machine gets Debian from, read out of its apt configuration (sources.list(5)). Pure: text in, mirrors out.
//!
//! An image is installed from the mirror that the host uses: it is near, allowed and trusted already. Entries of others than
//! Debian are passed over, as they cannot install a Debian.

/// One entry of an apt configuration: where, which suites, which parts, how it is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The archive's address.
    pub uri: String,
    /// Suites: `bookworm`, `bookworm-security`, ...
    pub suites: Vec<String>,
    /// Components: `main`, ...
    pub components: Vec<String>,
    /// Options that say how the archive is trusted, by their names in one-line entries.
    pub options: Vec<(String, String)>,
}

/// The Debian archives of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirrors {
    /// The archive itself.
    pub archive: Mirror,
    /// Whether the machine takes stable updates from it (`<suite>-updates`).
    pub updates: bool,
    /// The security archive, if it uses one.
    pub security: Option<Mirror>,
}

/// An archive and how it is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Its address.
    pub uri: String,
    /// Options as in [`Source::options`].
    pub options: Vec<(String, String)>,
}

/// The options that an image's build and the image itself keep; both formats give them the same names.
const TRUST_OPTIONS: [&str; 5] = ["signed-by", "trusted", "check-valid-until", "check-date", "allow-insecure"];

/// The entries of a `.list` file that are for binary packages. A line that apt would not take is passed over.
pub fn parse_list(text: &str) -> Vec<Source> {
    text.lines().filter_map(parse_line).collect()
}

/// The entries of a `.sources` file that are for binary packages and enabled.
pub fn parse_deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut paragraph: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.extend(source_of(&paragraph));
            paragraph.clear();
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = paragraph.last_mut() {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            paragraph.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    sources
}

/// The Debian archives among the entries of a machine: the first of each kind.
pub fn mirrors(sources: &[Source]) -> Option<Mirrors> {
    let debian = || sources.iter().filter(|source| is_debian(source));
    let mirror = |source: &Source| Mirror { uri: source.uri.clone(), options: source.options.clone() };
    let has = |source: &Source, fits: fn(&str) -> bool| source.suites.iter().any(|suite| fits(suite));
    Some(Mirrors {
        archive: mirror(debian().find(|source| has(source, is_release))?),
        updates: debian().any(|source| has(source, |suite| suite.ends_with("-updates"))),
        security: debian().find(|source| has(source, is_security)).map(mirror),
    })
}

impl Mirrors {
    /// One-line entries for `suite`, as mmdebstrap takes them.
    pub fn lines(&self, suite: &str) -> Vec<String> {
        self.entries(suite)
            .map(|(mirror, suites)| {
                let options: Vec<String> =
                    mirror.options.iter().map(|(name, value)| format!("{name}={}", value.replace('\n', ","))).collect();
                let options = if options.is_empty() { String::new() } else { format!("[{}] ", options.join(" ")) };
                suites.iter().map(|suite| format!("deb {options}{} {suite} main", mirror.uri)).collect::<Vec<_>>()
            })
            .collect::<Vec<_>>()
            .concat()
    }

    /// The same for the installed system, as a deb822 file.
    pub fn deb822(&self, suite: &str) -> String {
        let stanzas = self.entries(suite).map(|(mirror, suites)| {
            let mut stanza =
                format!("Types: deb\nURIs: {}\nSuites: {}\nComponents: main\n", mirror.uri, suites.join(" "));
            for (name, value) in &mirror.options {
                let value = value.split('\n').collect::<Vec<_>>().join("\n ");
                stanza.push_str(&format!("{}: {value}\n", field_name(name)));
            }
            stanza
        });
        stanzas.collect::<Vec<_>>().join("\n")
    }

    /// Every keyring file that the entries name.
    pub fn keyrings(&self) -> impl Iterator<Item = &str> {
        let options =
            [Some(&self.archive), self.security.as_ref()].into_iter().flatten().flat_map(|mirror| &mirror.options);
        options.filter(|(name, value)| name == "signed-by" && value.starts_with('/')).map(|(_, value)| value.as_str())
    }

    fn entries(&self, suite: &str) -> impl Iterator<Item = (&Mirror, Vec<String>)> {
        let mut suites = vec![suite.to_owned()];
        if self.updates {
            suites.push(format!("{suite}-updates"));
        }
        let security = self.security.as_ref().map(|mirror| (mirror, vec![format!("{suite}-security")]));
        [(&self.archive, suites)].into_iter().chain(security)
    }
}

/// `deb [option=value ...] uri suite component ...`
fn parse_line(line: &str) -> Option<Source> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let rest = line.strip_prefix("deb")?;
    if !rest.starts_with([' ', '\t']) {
        return None;
    }
    let rest = rest.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_ascii_whitespace();
    let (uri, suite) = (words.next()?, words.next()?);
    let given = options.split_ascii_whitespace().filter_map(|option| option.split_once('='));
    Some(Source {
        uri: uri.to_owned(),
        suites: vec![suite.to_owned()],
        components: words.map(str::to_owned).collect(),
        options: trust_options(given.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))),
    })
}

fn source_of(paragraph: &[(String, String)]) -> Vec<Source> {
    let field = |wanted: &str| paragraph.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let words = |name| field(name).unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let disabled = field("enabled")
        .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "no" | "false" | "off" | "0"));
    if disabled || !words("types").iter().any(|kind| kind == "deb") {
        return Vec::new();
    }
    let options = trust_options(paragraph.iter().cloned());
    let source =
        |uri| Source { uri, suites: words("suites"), components: words("components"), options: options.clone() };
    words("uris").into_iter().map(source).collect()
}

/// `signed-by` as deb822 files write it: `Signed-By`.
fn field_name(option: &str) -> String {
    let mut name = String::new();
    for letter in option.chars() {
        let begins = name.is_empty() || name.ends_with('-');
        name.push(if begins { letter.to_ascii_uppercase() } else { letter });
    }
    name
}

fn trust_options(given: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    given.filter(|(name, _)| TRUST_OPTIONS.contains(&name.as_str())).collect()
}

/// Whether an entry is one of Debian's own: its component `main`, its suite one of Debian's names for a release, and either
/// signed by Debian's keyring or laid out as a Debian mirror is.
fn is_debian(source: &Source) -> bool {
    let signed_by = source.options.iter().find(|(name, _)| name == "signed-by");
    let by_debian = signed_by.is_some_and(|(_, value)| value.contains("debian-archive-"));
    let path = source.uri.trim_end_matches('/');
    let mut segments = path.rsplit('/');
    let last = match segments.next() {
        // Snapshots of the archive end in the time that they show.
        Some(time) if time.ends_with('Z') && time.starts_with(|first: char| first.is_ascii_digit()) => segments.next(),
        last => last,
    };
    source.components.iter().any(|component| component == "main")
        && source.suites.iter().any(|suite| is_release(suite) || is_security(suite) || suite.ends_with("-updates"))
        && (by_debian || matches!(last, Some("debian" | "debian-security")))
}

/// `bookworm`, `stable`; not `bookworm-backports`, not `bookworm-pgdg`, not a path.
fn is_release(suite: &str) -> bool {
    !suite.is_empty() && suite.bytes().all(|byte| byte.is_ascii_lowercase())
}

fn is_security(suite: &str) -> bool {
    suite.ends_with("-security") || suite.ends_with("/updates")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn one_line_entries() {
        let text = "# a comment\n\
                    deb http://mirror.example.org/debian bookworm main contrib # and another\n\
                    deb-src http://mirror.example.org/debian bookworm main\n\
                    #deb http://off.example.org/debian bookworm main\n\
                    deb [ arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg ] https://mirror.example.org/debian-security bookworm-security main\n\
                    deb\n\
                    debian is no entry\n";
        let found = parse_list(text);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].uri, "http://mirror.example.org/debian");
        assert_eq!(found[0].components, words("main contrib"));
        assert!(found[0].options.is_empty());
        assert_eq!(found[1].suites, words("bookworm-security"));
        assert_eq!(found[1].options, [("signed-by".to_owned(), KEYRING.to_owned())]);
    }

    #[test]
    fn deb822_entries() {
        let text = "Types: deb deb-src\n\
                    # a comment inside\n\
                    URIs: http://mirror.example.org/debian\n\
                    Suites: bookworm\n bookworm-updates\n\
                    Components: main\n\
                    Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\
                    \n\
                    Enabled: no\nTypes: deb\nURIs: http://off.example.org/debian\nSuites: bookworm\nComponents: main\n\
                    \n\
                    types: deb\nuris: http://a.example.org/debian http://b.example.org/debian\nsuites: bookworm\ncomponents: main\n\
                    \n\
                    Types: deb-src\nURIs: http://src.example.org/debian\nSuites: bookworm\nComponents: main\n";
        let found = parse_deb822(text);
        let uris: Vec<&str> = found.iter().map(|source| source.uri.as_str()).collect();
        assert_eq!(
            uris,
            ["http://mirror.example.org/debian", "http://a.example.org/debian", "http://b.example.org/debian"]
        );
        assert_eq!(found[0].suites, words("bookworm bookworm-updates"));
    }

    #[test]
    fn a_key_inside_the_entry_is_kept_whole() {
        let text = "Types: deb\nURIs: http://mirror.example.org/debian\nSuites: bookworm\nComponents: main\n\
                    Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDMEYC\n -----END PGP PUBLIC KEY BLOCK-----\n";
        let mirrors = mirrors(&parse_deb822(text)).unwrap();
        let again = parse_deb822(&mirrors.deb822("bookworm"));
        assert_eq!(again[0].options, mirrors.archive.options);
        assert!(again[0].options[0].1.contains("\n.\nmDMEYC\n"));
    }

    #[test]
    fn entries_of_others_are_passed_over() {
        let text = "deb https://tools.example.org/linux/debian bookworm stable\n\
                    deb https://node.example.org/node_22.x nodistro main\n\
                    deb https://db.example.org/pub/repos/apt bookworm-pgdg main\n\
                    deb https://vendor.example.org/debian/12/prod bookworm main\n\
                    deb https://other.example.org/ubuntu noble main\n\
                    deb http://mirror.example.org/debian bookworm-backports main\n";
        assert_eq!(mirrors(&parse_list(text)), None);
    }

    #[test]
    fn mirrors_are_found_however_they_are_laid_out() {
        for uri in [
            "http://mirror.example.org/debian/",
            "http://snapshot.example.org/archive/debian/20250520T000000Z",
            "https://proxy.example.org/remote/debian",
        ] {
            let found = mirrors(&parse_list(&format!("deb {uri} bookworm main"))).unwrap();
            assert_eq!(found.archive.uri, uri);
            assert!(!found.updates && found.security.is_none());
        }
        let odd = format!("deb [signed-by={KEYRING}] https://corp.example.org/artifacts/deb-remote bookworm main");
        assert!(mirrors(&parse_list(&odd)).is_some());
    }

    #[test]
    fn what_goes_into_the_image_is_what_the_host_uses() {
        let text = "Types: deb\nURIs: http://mirror.example.org/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\
                    Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
                    Types: deb\nURIs: http://mirror.example.org/debian-security\nSuites: bookworm-security\nComponents: main\n\
                    Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";
        let mirrors = mirrors(&parse_deb822(text)).unwrap();
        assert_eq!(mirrors.deb822("bookworm"), text);
        let option = format!("[signed-by={KEYRING}]");
        assert_eq!(
            mirrors.lines("bookworm"),
            [
                format!("deb {option} http://mirror.example.org/debian bookworm main"),
                format!("deb {option} http://mirror.example.org/debian bookworm-updates main"),
                format!("deb {option} http://mirror.example.org/debian-security bookworm-security main"),
            ]
        );
        assert_eq!(mirrors.keyrings().collect::<Vec<_>>(), [KEYRING, KEYRING]);
    }
}
