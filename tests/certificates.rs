//! `make ca`, `make server_cert` and `make client_cert` as the specification describes them, run
//! in a copy of `docker/ssl`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::*;

/// A project of its own: `docker/ssl` with its link to `certs`.
struct Project(TempDir);

impl Project {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let ssl = directory.path().join("docker/ssl");
        fs::create_dir_all(&ssl).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/ssl");
        for file in ["Makefile", "certificates.sh"] {
            fs::copy(source.join(file), ssl.join(file)).unwrap();
        }
        symlink("../../certs", ssl.join("certs")).unwrap();
        Self(directory)
    }

    fn with_authority() -> Self {
        let project = Self::new();
        project.make(&["ca"]);
        project
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut make = Command::new("make");
        // What this test run was started by must not speak into it.
        make.env_remove("MAKEFLAGS").env_remove("MFLAGS");
        make.args(arguments)
            .current_dir(self.0.path().join("docker/ssl"))
            .output()
            .unwrap()
    }

    fn make(&self, arguments: &[&str]) {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    fn refuses(&self, arguments: &[&str], reason: &str) {
        let before = self.files();
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?} succeeded");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(message.contains(reason), "{arguments:?}: {message}");
        assert_eq!(self.files(), before, "{arguments:?} left something behind");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("certs").join(name)
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.0.path().join("certs"));
        let mut files: Vec<_> = entries
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
    }

    /// Looks at a certificate.
    fn with<T>(&self, name: &str, look: impl FnOnce(&X509Certificate<'_>) -> T) -> T {
        let text = fs::read(self.path(name)).unwrap();
        let (_, pem) = parse_x509_pem(&text).unwrap();
        look(&pem.parse_x509().unwrap())
    }

    fn openssl(&self, arguments: &[&str]) -> Output {
        let mut openssl = Command::new("openssl");
        openssl
            .args(arguments)
            .current_dir(self.0.path().join("certs"))
            .output()
            .unwrap()
    }
}

fn attribute(certificate: &X509Certificate<'_>, name: &str) -> Option<String> {
    let subject = certificate.subject();
    let mut found = match name {
        "CN" => subject.iter_common_name().collect::<Vec<_>>(),
        "O" => subject.iter_organization().collect(),
        "OU" => subject.iter_organizational_unit().collect(),
        _ => subject.iter_email().collect(),
    };
    assert!(found.len() < 2, "{name} more than once");
    found.pop().map(|value| value.as_str().unwrap().to_owned())
}

fn days(certificate: &X509Certificate<'_>) -> i64 {
    let validity = certificate.validity();
    (validity.not_after.timestamp() - validity.not_before.timestamp()) / 86_400
}

#[test]
fn without_arguments_the_defaults_of_the_specification_hold() {
    let project = Project::with_authority();
    project.make(&["server_cert"]);
    project.make(&["client_cert"]);
    for (file, common_name, unit, lifetime) in [
        ("ca.crt", "localhost", "magistrala_ca", 1095),
        ("portcullis-server.crt", "localhost", "magistrala", 1000),
        (
            "client.crt",
            "d7cc2964-a48b-4a6e-871a-08da28e7883d",
            "magistrala",
            730,
        ),
    ] {
        project.with(file, |certificate| {
            assert_eq!(
                attribute(certificate, "CN").as_deref(),
                Some(common_name),
                "{file}"
            );
            assert_eq!(
                attribute(certificate, "O").as_deref(),
                Some("Magistrala"),
                "{file}"
            );
            assert_eq!(
                attribute(certificate, "OU").as_deref(),
                Some(unit),
                "{file}"
            );
            let email = attribute(certificate, "emailAddress");
            assert_eq!(email.as_deref(), Some("info@magistrala.com"), "{file}");
            assert_eq!(days(certificate), lifetime, "{file}");
        });
    }
}

#[test]
fn every_variable_of_the_specification_is_honoured() {
    let project = Project::new();
    let common = [
        "CN=gw.example.com",
        "O=Org",
        "OU=Unit",
        "emailAddress=a@b.c",
    ];
    project.make(&[&["ca"][..], &common].concat());
    project.make(&[&["server_cert"][..], &common].concat());
    project.make(&[
        "client_cert",
        "CLIENT_SECRET=s3cret",
        "CRT_FILE_NAME=meter-7",
        "O=Org",
        "OU=Unit",
        "emailAddress=a@b.c",
    ]);
    for (file, common_name, unit) in [
        ("ca.crt", "gw.example.com", "Unit_ca"),
        ("portcullis-server.crt", "gw.example.com", "Unit"),
        ("meter-7.crt", "s3cret", "Unit"),
    ] {
        project.with(file, |certificate| {
            assert_eq!(
                attribute(certificate, "CN").as_deref(),
                Some(common_name),
                "{file}"
            );
            assert_eq!(
                attribute(certificate, "O").as_deref(),
                Some("Org"),
                "{file}"
            );
            assert_eq!(
                attribute(certificate, "OU").as_deref(),
                Some(unit),
                "{file}"
            );
            assert_eq!(
                attribute(certificate, "emailAddress").as_deref(),
                Some("a@b.c"),
                "{file}"
            );
        });
    }
    project.make(&["client_cert", "EA=x@y.z", "CRT_FILE_NAME=short"]);
    project.with("short.crt", |certificate| {
        assert_eq!(
            attribute(certificate, "emailAddress").as_deref(),
            Some("x@y.z")
        );
    });
}

#[test]
fn certificates_are_version_3_with_the_extensions_of_their_kind() {
    for key_type in ["ecdsa", "rsa"] {
        let project = Project::new();
        let key_type = format!("KEY_TYPE={key_type}");
        project.make(&["ca", &key_type]);
        project.make(&["server_cert", &key_type, "CN=gw.example.com"]);
        project.make(&["client_cert", &key_type]);
        for file in ["ca.crt", "portcullis-server.crt", "client.crt"] {
            project.with(file, |certificate| {
                assert_eq!(certificate.version(), X509Version::V3, "{file}");
                let constraints = certificate.basic_constraints().unwrap().unwrap();
                assert_eq!(constraints.value.ca, file == "ca.crt", "{file}");
                assert!(constraints.critical, "{file}");
                let usage = certificate.key_usage().unwrap().unwrap().value;
                assert_eq!(usage.key_cert_sign(), file == "ca.crt", "{file}");
                let extended = certificate
                    .extended_key_usage()
                    .unwrap()
                    .map(|usage| usage.value);
                let (server, client) = extended.map_or((false, false), |usage| {
                    (usage.server_auth, usage.client_auth)
                });
                assert_eq!(server, file == "portcullis-server.crt", "{file}");
                assert_eq!(client, file == "client.crt", "{file}");
                let elliptic = certificate.public_key().algorithm.algorithm
                    == x509_parser::oid_registry::OID_KEY_TYPE_EC_PUBLIC_KEY;
                assert_eq!(elliptic, key_type == "KEY_TYPE=ecdsa", "{file}");
            });
        }
        project.with("portcullis-server.crt", |certificate| {
            let names = certificate
                .subject_alternative_name()
                .unwrap()
                .unwrap()
                .value;
            let names: Vec<String> = names
                .general_names
                .iter()
                .map(ToString::to_string)
                .collect();
            for name in [
                "DNSName(gw.example.com)",
                "DNSName(localhost)",
                "IPAddress(7f:00:00:01)",
            ] {
                assert!(
                    names.iter().any(|known| known == name),
                    "{name} in {names:?}"
                );
            }
        });
        for (purpose, file) in [
            ("sslserver", "portcullis-server.crt"),
            ("sslclient", "client.crt"),
        ] {
            let verify = [
                "verify",
                "-x509_strict",
                "-CAfile",
                "ca.crt",
                "-purpose",
                purpose,
                file,
            ];
            let output = project.openssl(&verify);
            assert!(output.status.success(), "{file}: {output:?}");
        }
        let wrong = project.openssl(&[
            "verify",
            "-CAfile",
            "ca.crt",
            "-purpose",
            "sslserver",
            "client.crt",
        ]);
        assert!(!wrong.status.success(), "a client's certificate serves");
    }
}

#[test]
fn a_secret_of_any_characters_stands_in_the_common_name_exactly() {
    let project = Project::with_authority();
    for secret in [
        "ab=cd",
        "a,b;c",
        "a/b+c",
        "back\\slash",
        "quo\"te's",
        "sp ace",
        "ha#sh",
        "per%cent",
        "d\u{e9}j\u{e0}",
        "`id`",
        "x,CN=victim",
    ] {
        project.make(&["client_cert", &format!("CLIENT_SECRET={secret}")]);
        project.with("client.crt", |certificate| {
            assert_eq!(attribute(certificate, "CN").as_deref(), Some(secret));
        });
    }
    project.make(&["client_cert", "CLIENT_SECRET=do$$ar"]);
    project.with("client.crt", |certificate| {
        assert_eq!(attribute(certificate, "CN").as_deref(), Some("do$ar"));
    });
    project.make(&["client_cert", "O=x,CN=victim", "OU=", "emailAddress="]);
    project.with("client.crt", |certificate| {
        assert_eq!(attribute(certificate, "O").as_deref(), Some("x,CN=victim"));
        assert_eq!(attribute(certificate, "OU"), None);
        assert_eq!(attribute(certificate, "emailAddress"), None);
    });
}

#[test]
fn a_secret_that_cannot_be_one_is_refused() {
    let project = Project::with_authority();
    project.refuses(&["client_cert", "CLIENT_SECRET="], "CLIENT_SECRET is empty");
    project.refuses(
        &["client_cert", "CLIENT_SECRET= "],
        "CLIENT_SECRET is empty",
    );
    project.refuses(&["client_cert", "CLIENT_SECRET=a "], "white space");
    let long = format!("CLIENT_SECRET={}", "x".repeat(65));
    project.refuses(&["client_cert", &long], "longer than the 64 characters");
    project.make(&["client_cert", &format!("CLIENT_SECRET={}", "x".repeat(64))]);
    project.refuses(&["client_cert", "CRT_FILE_NAME=../x"], "CRT_FILE_NAME");
    project.refuses(&["client_cert", "CRT_FILE_NAME=ca"], "CRT_FILE_NAME");
    project.refuses(
        &["client_cert", "KEY_TYPE=dsa"],
        "KEY_TYPE must be ecdsa or rsa",
    );
    project.refuses(&["server_cert", "CN=two,names"], "CN must be");
}

#[test]
fn an_authority_is_made_once_and_needed_first() {
    let project = Project::new();
    fs::create_dir(project.0.path().join("certs")).unwrap();
    project.refuses(&["client_cert"], "run make ca first");
    project.refuses(&["server_cert"], "run make ca first");
    project.make(&["ca"]);
    let before = fs::read(project.path("ca.crt")).unwrap();
    project.refuses(&["ca"], "has an authority already");
    assert_eq!(fs::read(project.path("ca.crt")).unwrap(), before);
}

#[test]
fn private_keys_are_for_their_owner_alone() {
    let project = Project::with_authority();
    project.make(&["server_cert"]);
    project.make(&["client_cert"]);
    for file in ["ca.key", "portcullis-server.key", "client.key"] {
        let mode = fs::metadata(project.path(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}
