//! Which VM a host name means. Pure.

use banger_api::name::HOST;

/// A host name as it was typed, with the user in front of it, if there was one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The login name.
    pub user: Option<String>,
    /// A VM's name or id, or a name in the domain of VMs.
    pub host: String,
}

/// Why a host name means no VM.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It is in another domain.
    #[error("{host} is no VM: names of VMs end in .{domain}")]
    Elsewhere {
        /// The name.
        host: String,
        /// The VMs' domain.
        domain: String,
    },
    /// It is the host's own.
    #[error("{0} is this host itself, not a VM")]
    Host(String),
    /// The daemon named a domain that none can be.
    #[error("the daemon gives its VMs the domain '{0}', which is none")]
    Domain(String),
}

/// A daemon's domain, if it can be one: it goes into a file of ssh's, where more than a name would be more options.
///
/// # Errors
/// [`TargetError::Domain`].
pub fn checked_domain(domain: String) -> Result<String, TargetError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let is_label = |label: &str| !label.is_empty() && label.bytes().all(plain);
    if domain.split('.').all(is_label) { Ok(domain) } else { Err(TargetError::Domain(domain)) }
}

/// `[USER@]NAME`, the value of an argument.
pub fn target(text: &str) -> Result<Target, String> {
    let (user, host) = match text.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, text),
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    // One that begins with a hyphen would be an option of a program that it is handed to.
    let is_name = |text: &str| !text.is_empty() && text.bytes().all(allowed) && !text.starts_with(['-', '.']);
    if !is_name(host) || user.is_some_and(|user| !is_name(user)) {
        return Err("it is no name of a VM, with or without its domain".to_owned());
    }
    Ok(Target { user: user.map(str::to_owned), host: host.to_owned() })
}

/// The VM's name or id in a host name: `devbox`, `devbox.vm` or anything below it, as `www.devbox.vm`.
///
/// # Errors
/// [`TargetError`].
pub fn vm_of<'a>(host: &'a str, domain: &str) -> Result<&'a str, TargetError> {
    let plain = host.strip_suffix('.').unwrap_or(host);
    if !plain.contains('.') {
        return Ok(plain);
    }
    let elsewhere = || TargetError::Elsewhere { host: host.to_owned(), domain: domain.to_owned() };
    let at = plain.len().checked_sub(domain.len() + 1).ok_or_else(elsewhere)?;
    let (below, end) = plain.split_at_checked(at).ok_or_else(elsewhere)?;
    if !end.strip_prefix('.').is_some_and(|end| end.eq_ignore_ascii_case(domain)) || below.is_empty() {
        return Err(elsewhere());
    }
    match below.rsplit('.').next() {
        Some(HOST) => Err(TargetError::Host(host.to_owned())),
        Some("") | None => Err(elsewhere()),
        Some(name) => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_is_meant_by_its_name_and_by_all_below_it_in_the_domain() {
        for host in ["devbox", "devbox.", "devbox.vm", "devbox.VM", "devbox.vm.", "www.devbox.vm", "a.b.devbox.vm"] {
            assert_eq!(vm_of(host, "vm"), Ok("devbox"), "{host}");
        }
        assert_eq!(vm_of("www.devbox.lab.test", "lab.test"), Ok("devbox"));
        assert_eq!(vm_of("vm", "vm"), Ok("vm"));
    }

    #[test]
    fn a_name_that_only_looks_like_it_is_none() {
        for host in ["devbox.xvm", "devbox.vm.org", ".vm", "..vm", "devbox..vm", "example.org", "a.b", "devbox.vmx"] {
            assert!(matches!(vm_of(host, "vm"), Err(TargetError::Elsewhere { .. })), "{host}");
        }
        assert!(matches!(vm_of("lab.test", "lab.test"), Err(TargetError::Elsewhere { .. })));
        assert!(matches!(vm_of("ä.v", "lab.test"), Err(TargetError::Elsewhere { .. })));
        assert!(matches!(vm_of("xä.vm", "y.vm"), Err(TargetError::Elsewhere { .. })));
        assert_eq!(vm_of("host.vm", "vm"), Err(TargetError::Host("host.vm".into())));
    }

    #[test]
    fn a_user_may_stand_in_front_and_nothing_else() {
        let of = |text| target(text).map(|target| (target.user, target.host));
        assert_eq!(of("devbox"), Ok((None, "devbox".into())));
        assert_eq!(of("root@www.devbox.vm"), Ok((Some("root".into()), "www.devbox.vm".into())));
        for bad in
            ["", "@devbox", "root@", "-oProxyCommand=x", "root@-x", "a b", "dev/box", "dev%h", "de'v", "[::1]:22"]
        {
            assert!(target(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_domain_is_a_name_and_no_more() {
        for good in ["vm", "vm1", "dev.example-1"] {
            assert_eq!(checked_domain(good.to_owned()), Ok(good.to_owned()));
        }
        for bad in ["", ".", "vm.", "vm\n    ProxyCommand x", "vm *", "\u{1b}"] {
            assert_eq!(checked_domain(bad.to_owned()), Err(TargetError::Domain(bad.to_owned())));
        }
    }
}
