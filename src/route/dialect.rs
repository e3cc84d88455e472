//! In which words an upstream is told of a client's certificate.

/// A set of header fields that says who a client is by its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateDialect {
    /// `Client-Cert` and `Client-Cert-Chain` (RFC 9440).
    Rfc9440,
    /// `X-Forwarded-Client-Cert`, as Envoy says it.
    Xfcc,
    /// `X-SSL-Client-*`, as nginx is commonly configured to say it.
    Nginx,
    /// `X-Forwarded-Tls-Client-Cert` and `-Info`, as Traefik says it.
    Traefik,
}
