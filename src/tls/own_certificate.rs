//! The gateway's own certificate as its clients will judge it. One that they will refuse is served all the
//! same, since not every device looks at the date; but the log says so before they do.

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::X509Certificate;

use super::client_verifier::{parse, seconds, within_validity};
use super::policy::PolicySettings;

/// Warns of whatever clients will not like about the certificate of `policy`, and says until when it
/// is valid, if it can be read.
pub(super) fn judge(policy: &PolicySettings, leaf: &CertificateDer<'_>, now: u64) -> Option<u64> {
    let certificate = parse(leaf).ok()?;
    for fault in faults(&certificate, now) {
        tracing::warn!(
            policy = policy.name,
            path = %policy.certificate.display(),
            "clients will refuse the server's certificate: {fault}"
        );
    }
    Some(seconds(certificate.validity().not_after.timestamp()))
}

fn faults(certificate: &X509Certificate<'_>, now: u64) -> Vec<String> {
    let outdated = within_validity(certificate, now).err();
    let usage = certificate.extended_key_usage().ok().flatten();
    let is_for_others = usage.is_some_and(|usage| !usage.value.server_auth && !usage.value.any);
    let misused =
        is_for_others.then(|| "its extended key usage does not include serverAuth".into());
    let outdated = outdated.map(|reason| reason.to_string());
    outdated.into_iter().chain(misused).collect()
}
