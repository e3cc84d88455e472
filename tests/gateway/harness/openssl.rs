//! Certificates by the `openssl` command, for what only it makes: those of the reference Makefile,
//! and keys too weak for rustls.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use super::lab::SECRET;
use super::{Identity, Lab};

/// An authority and its devices, made by exactly the calls of the reference Makefile: the devices'
/// certificates are X.509 version 1, because `openssl x509 -req` adds no extension unasked.
pub struct Fleet {
    pub ca_pem: String,
    pub ca_key_pem: String,
    pub rsa_2048: Identity,
    pub rsa_4096: Identity,
}

/// The fleet, made once: keys of 4096 bits take their time.
pub fn fleet() -> &'static Fleet {
    static FLEET: OnceLock<Fleet> = OnceLock::new();
    FLEET.get_or_init(Fleet::make)
}

impl Fleet {
    fn make() -> Self {
        let folder = TempDir::new().unwrap();
        let folder = folder.path();
        openssl(
            folder,
            "req -newkey rsa:2048 -x509 -nodes -sha512 -days 1095 -keyout ca.key -out ca.crt \
             -subj /CN=SuperMQ_Self_Signed_CA/O=SuperMQ/OU=supermq_ca/emailAddress=info@supermq.test",
        );
        Self {
            ca_pem: read(folder, "ca.crt"),
            ca_key_pem: read(folder, "ca.key"),
            rsa_2048: make_client(folder, 2048),
            rsa_4096: make_client(folder, 4096),
        }
    }
}

fn make_client(folder: &Path, bits: u16) -> Identity {
    let subject = format!("/CN={SECRET}/O=SuperMQ/OU=supermq_crt/emailAddress=info@supermq.test");
    openssl(
        folder,
        &format!(
            "req -new -sha256 -newkey rsa:{bits} -nodes -keyout client.key -out client.csr \
             -subj {subject}"
        ),
    );
    openssl(
        folder,
        "x509 -req -days 730 -in client.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out client.crt",
    );
    identity(folder, "client")
}

/// A version 1 certificate for `key_pem`, issued by this authority.
pub fn version_1(ca_pem: &str, ca_key_pem: &str, common_name: &str, key_pem: &str) -> Identity {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("ca.crt"), ca_pem).unwrap();
    std::fs::write(folder.join("ca.key"), ca_key_pem).unwrap();
    std::fs::write(folder.join("leaf.key"), key_pem).unwrap();
    let subject = format!("/CN={common_name}");
    run(
        folder,
        &[
            "req", "-new", "-sha256", "-key", "leaf.key", "-out", "leaf.csr", "-utf8", "-subj",
            &subject,
        ],
    );
    openssl(
        folder,
        "x509 -req -days 730 -in leaf.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out leaf.crt",
    );
    identity(folder, "leaf")
}

/// Runs `openssl` with these words in `folder`.
pub fn openssl(folder: &Path, words: &str) {
    run(folder, &words.split_ascii_whitespace().collect::<Vec<_>>());
}

fn run(folder: &Path, words: &[&str]) {
    let output = Command::new("openssl")
        .args(words)
        .current_dir(folder)
        .output()
        .expect("openssl is installed");
    assert!(
        output.status.success(),
        "openssl {words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The answer that the `openssl` command gets with `leaf.crt` and `leaf.key` in `folder`, and what
/// it says about it. It signs with keys that rustls would not.
pub async fn ask(lab: &Lab, folder: &Path, version: &str) -> String {
    let request = b"GET /http/m HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    s_client(lab, folder, &[version, "-quiet"], request).await
}

/// The same with a line that `openssl` takes for itself: `R` for a renegotiation.
pub async fn say(lab: &Lab, folder: &Path, version: &str, line: &[u8]) -> String {
    s_client(lab, folder, &[version, "-legacy_server_connect"], line).await
}

async fn s_client(lab: &Lab, folder: &Path, words: &[&str], input: &[u8]) -> String {
    std::fs::write(folder.join("server-ca.crt"), lab.authority.pem()).unwrap();
    let mut child = tokio::process::Command::new("openssl")
        .args(["s_client", "-no_ign_eof"])
        .args(words)
        .args([
            "-connect",
            &lab.address().to_string(),
            "-servername",
            "localhost",
        ])
        .args([
            "-CAfile",
            "server-ca.crt",
            "-cert",
            "leaf.crt",
            "-key",
            "leaf.key",
        ])
        .args(["-cipher", "DEFAULT@SECLEVEL=0"])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("openssl is installed");
    // Kept open until the end: at the end of its input openssl would not wait for an answer.
    let mut stdin = child.stdin.take().unwrap();
    // The client may have been refused already.
    let _ = stdin.write_all(input).await;
    let output = child.wait_with_output().await.unwrap();
    drop(stdin);
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    answer + &String::from_utf8_lossy(&output.stderr)
}

/// The certificate and key of this name in `folder`.
pub fn identity(folder: &Path, name: &str) -> Identity {
    let chain_pem = read(folder, &format!("{name}.crt"));
    let key_pem = read(folder, &format!("{name}.key"));
    Identity {
        chain: CertificateDer::pem_slice_iter(chain_pem.as_bytes())
            .collect::<Result<_, _>>()
            .unwrap(),
        key: PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).unwrap(),
        chain_pem,
        key_pem,
    }
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap()
}
