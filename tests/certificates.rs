//! `make ca`, `make server_cert` and `make client_cert` as the specification describes them, run
//! in a copy of `docker/ssl`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tempfile::TempDir;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::*;

/// A project of its own: the root's Makefile, and `docker/ssl` with its link to `certs`.
struct Project(TempDir);

impl Project {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let ssl = directory.path().join("docker/ssl");
        fs::create_dir_all(&ssl).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR"));
        for file in [
            "Makefile",
            "docker/ssl/Makefile",
            "docker/ssl/certificates.sh",
        ] {
            fs::copy(source.join(file), directory.path().join(file)).unwrap();
        }
        symlink("../../certs", ssl.join("certs")).unwrap();
        Self(directory)
    }

    fn with_authority() -> Self {
        let project = Self::new();
        project.make(&["ca"]);
        project
    }

    /// `make`, still without a target, in `docker/ssl`.
    fn command(&self) -> Command {
        let mut make = Command::new("make");
        // What this test run was started by must not speak into it.
        make.env_remove("MAKEFLAGS").env_remove("MFLAGS");
        make.current_dir(self.0.path().join("docker/ssl"));
        make
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }

    fn make(&self, arguments: &[&str]) {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    fn refuses(&self, arguments: &[&str], reason: &str) {
        self.refuses_by(self.command().args(arguments), reason);
    }

    fn refuses_by(&self, make: &mut Command, reason: &str) {
        let before = self.files();
        let output = make.output().unwrap();
        assert!(!output.status.success(), "{make:?} succeeded");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(message.contains(reason), "{make:?}: {message}");
        assert_eq!(self.files(), before, "{make:?} left something behind");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("certs").join(name)
    }

    /// Every file in `certs` with what it holds; `None` if there is no such folder.
    fn files(&self) -> Option<Vec<(PathBuf, Vec<u8>)>> {
        let mut files: Vec<_> = fs::read_dir(self.0.path().join("certs"))
            .ok()?
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect();
        files.sort();
        Some(files)
    }

    /// Looks at a certificate.
    fn with<T>(&self, name: &str, look: impl FnOnce(&X509Certificate<'_>) -> T) -> T {
        let text = fs::read(self.path(name)).unwrap();
        let (_, pem) = parse_x509_pem(&text).unwrap();
        look(&pem.parse_x509().unwrap())
    }

    fn der(&self, name: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.path(name)).unwrap()
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der("ca.crt")).unwrap();
        Arc::new(roots)
    }

    /// Whether OpenSSL takes a certificate for that purpose, by the strict reading of RFC 5280.
    fn verifies(&self, name: &str, purpose: &str) -> bool {
        let mut openssl = Command::new("openssl");
        openssl.args(["verify", "-x509_strict", "-CAfile", "ca.crt", "-purpose"]);
        let output = openssl
            .args([purpose, name])
            .current_dir(self.0.path().join("certs"))
            .output();
        output.unwrap().status.success()
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
        ("ca.crt", "localhost", "magistrala", 1095),
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
        ("ca.crt", "gw.example.com", "Unit"),
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
    }
}

#[test]
fn openssl_takes_each_certificate_for_its_own_purpose_alone() {
    for key_type in ["KEY_TYPE=ecdsa", "KEY_TYPE=rsa"] {
        let project = Project::new();
        for target in ["ca", "server_cert", "client_cert"] {
            project.make(&[target, key_type]);
        }
        assert!(project.verifies("portcullis-server.crt", "sslserver"));
        assert!(!project.verifies("portcullis-server.crt", "sslclient"));
        assert!(project.verifies("client.crt", "sslclient"));
        assert!(!project.verifies("client.crt", "sslserver"));
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
    project.refuses(&["client_cert", "CRT_FILE_NAME=../x"], "CRT_FILE_NAME");
    project.refuses(&["client_cert", "CRT_FILE_NAME=ca"], "CRT_FILE_NAME");
    project.refuses(
        &["client_cert", "KEY_TYPE=dsa"],
        "KEY_TYPE must be ecdsa or rsa",
    );
    project.refuses(&["server_cert", "CN=two,names"], "CN must be");
}

#[test]
fn values_are_bounded_by_bytes_in_every_locale() {
    let project = Project::with_authority();
    for locale in ["C", "C.UTF-8"] {
        for (name, at_most, too_long) in [
            ("CLIENT_SECRET", "x".repeat(64), "x".repeat(65)),
            ("CLIENT_SECRET", "\u{e9}".repeat(32), "\u{e9}".repeat(33)),
            ("O", "x".repeat(64), "x".repeat(65)),
            ("OU", "x".repeat(64), "x".repeat(65)),
        ] {
            let make = |value: &str| {
                let mut make = project.command();
                make.env("LC_ALL", locale)
                    .args(["client_cert", &format!("{name}={value}")]);
                make
            };
            assert!(make(&at_most).output().unwrap().status.success(), "{name}");
            let reason = format!("{name} is longer than 64 bytes");
            project.refuses_by(&mut make(&too_long), &reason);
        }
    }
}

#[test]
fn a_value_refused_makes_not_even_the_folder() {
    let project = Project::new();
    project.refuses(&["client_cert", "CLIENT_SECRET="], "CLIENT_SECRET is empty");
    project.refuses(&["ca", "CN="], "CN is empty");
    project.refuses(&["ca", "O=a\tb"], "O holds a control character");
    project.refuses(&["server_cert"], "run make ca first");
    assert_eq!(project.files(), None);
    project.make(&["ca"]);
    assert!(project.files().is_some());
}

#[test]
fn the_server_is_named_by_its_cn_and_by_this_machines_own_names() {
    let project = Project::with_authority();
    let own = [
        "DNSName(localhost)",
        "IPAddress(7f:00:00:01)",
        "IPAddress(00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:01)",
    ];
    for (common_name, first) in [
        ("localhost", None),
        ("127.0.0.1", None),
        ("::1", None),
        ("gw.example.com", Some("DNSName(gw.example.com)")),
        ("*.example.com", Some("DNSName(*.example.com)")),
        ("10.0.0.7", Some("IPAddress(0a:00:00:07)")),
        (
            "2001:db8::7",
            Some("IPAddress(20:01:0d:b8:00:00:00:00:00:00:00:00:00:00:00:07)"),
        ),
    ] {
        project.make(&["server_cert", &format!("CN={common_name}")]);
        let names = project.with("portcullis-server.crt", |certificate| {
            let names = certificate.subject_alternative_name().unwrap().unwrap();
            let names = names.value.general_names.iter();
            names.map(ToString::to_string).collect::<Vec<_>>()
        });
        let expected: Vec<&str> = first.into_iter().chain(own).collect();
        assert_eq!(names, expected, "{common_name}");
    }
    for common_name in ["two,names", "a b", "x\u{e9}.example.com"] {
        project.refuses(
            &["server_cert", &format!("CN={common_name}")],
            "CN must be a host name or an address",
        );
    }
    project.refuses(&["server_cert", "CN=1.2.3.4.5"], "bad ip address");
}

#[test]
fn the_gateways_own_tls_library_trusts_what_the_authority_signed_and_nothing_else() {
    let (project, stranger) = (Project::with_authority(), Project::with_authority());
    for each in [&project, &stranger] {
        each.make(&["server_cert", "CN=gw.example.com"]);
        each.make(&["client_cert"]);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let servers =
        WebPkiServerVerifier::builder_with_provider(project.roots(), Arc::clone(&provider))
            .build()
            .unwrap();
    let serves = |certificate: &CertificateDer<'_>, name: &'static str| {
        let name = ServerName::try_from(name).unwrap();
        servers
            .verify_server_cert(certificate, &[], &name, &[], UnixTime::now())
            .is_ok()
    };
    let server = project.der("portcullis-server.crt");
    for name in ["gw.example.com", "localhost", "127.0.0.1", "::1"] {
        assert!(serves(&server, name), "{name}");
    }
    assert!(!serves(&server, "other.example.com"));
    assert!(!serves(&stranger.der("portcullis-server.crt"), "localhost"));

    let clients = WebPkiClientVerifier::builder_with_provider(project.roots(), provider)
        .build()
        .unwrap();
    let is_let_in = |certificate: &CertificateDer<'_>| {
        clients
            .verify_client_cert(certificate, &[], UnixTime::now())
            .is_ok()
    };
    assert!(is_let_in(&project.der("client.crt")));
    assert!(!is_let_in(&server));
    assert!(!is_let_in(&stranger.der("client.crt")));
}

#[test]
fn curl_and_node_trust_the_server_by_its_authority_alone() {
    // The CN is the same by default, and with no OU nothing else would tell the subjects apart.
    for arguments in [&[][..], &["OU="]] {
        let project = Project::new();
        for target in ["ca", "server_cert", "client_cert"] {
            project.make(&[&[target], arguments].concat());
        }
        let server = Server::start(&project);
        let stranger = Project::with_authority();
        assert_eq!(server.status_for_curl(&project), "200");
        assert_eq!(server.status_for_curl(&stranger), "000");
        assert_eq!(server.status_for_node(&project), "200");
        assert_eq!(server.status_for_node(&stranger), "refused");
    }
}

/// OpenSSL's test server with a project's certificate, on a port of its choice.
struct Server(Child, String);

impl Server {
    fn start(project: &Project) -> Self {
        let mut openssl = Command::new("openssl");
        openssl.args(["s_server", "-accept", "127.0.0.1:0", "-www", "-cert"]);
        let mut child = openssl
            .args(["portcullis-server.crt", "-key", "portcullis-server.key"])
            .current_dir(project.0.path().join("certs"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let port = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap)
            .find_map(|line| Some(line.strip_prefix("ACCEPT 127.0.0.1:")?.to_owned()))
            .expect("s_server says where it listens");
        Self(child, format!("https://localhost:{port}/"))
    }

    fn status_for_curl(&self, project: &Project) -> String {
        let mut curl = Command::new("curl");
        curl.args([
            "-s",
            "-4",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--cacert",
        ]);
        let output = curl.arg(project.path("ca.crt")).arg(&self.1).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    fn status_for_node(&self, project: &Project) -> String {
        let mut node = Command::new("node");
        node.arg("-e").arg(
            "const [ca, url] = process.argv.slice(1);
             const options = { ca: require('fs').readFileSync(ca), family: 4, agent: false };
             require('https').get(url, options, answer => {
               process.stdout.write(String(answer.statusCode));
               process.exit();
             }).on('error', () => process.stdout.write('refused'));",
        );
        let output = node.arg(project.path("ca.crt")).arg(&self.1).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_authority_and_the_server_never_have_the_same_subject() {
    for arguments in [&[][..], &["OU="], &["O=", "OU=", "emailAddress="]] {
        let project = Project::new();
        project.make(&[&["ca"], arguments].concat());
        project.make(&[&["server_cert"], arguments].concat());
        let subject =
            |name| project.with(name, |certificate| certificate.subject().as_raw().to_vec());
        assert_ne!(subject("ca.crt"), subject("portcullis-server.crt"));
    }
}

#[test]
fn certificates_name_their_keys_and_have_serial_numbers_of_128_bits() {
    let project = Project::with_authority();
    project.make(&["server_cert"]);
    project.make(&["client_cert"]);
    let identifiers = |name: &str| {
        project.with(name, |certificate| {
            assert_eq!(certificate.raw_serial().len(), 16, "{name}");
            let (mut subject, mut issuer) = (None, None);
            for extension in certificate.extensions() {
                match extension.parsed_extension() {
                    ParsedExtension::SubjectKeyIdentifier(key) => subject = Some(key.0.to_vec()),
                    ParsedExtension::AuthorityKeyIdentifier(key) => {
                        issuer = key.key_identifier.as_ref().map(|key| key.0.to_vec());
                    }
                    _ => {}
                }
            }
            (
                subject.expect(name),
                issuer,
                certificate.raw_serial().to_vec(),
            )
        })
    };
    let (authority, _, mut serials) = {
        let (key, issuer, serial) = identifiers("ca.crt");
        (key, issuer, vec![serial])
    };
    for name in ["portcullis-server.crt", "client.crt"] {
        let (key, issuer, serial) = identifiers(name);
        assert_eq!(issuer.as_ref(), Some(&authority), "{name}");
        assert_ne!(key, authority, "{name}");
        assert!(!serials.contains(&serial), "{name}");
        serials.push(serial);
    }
}

#[test]
fn an_authority_is_made_first_and_once() {
    let project = Project::new();
    project.refuses(&["client_cert"], "run make ca first");
    project.refuses(&["server_cert"], "run make ca first");
    project.make(&["ca"]);
    project.make(&["client_cert"]);
    project.refuses(&["ca"], "has an authority already");
    project.refuses(&["ca", "FORCE=0"], "say FORCE=1");
    assert!(project.verifies("client.crt", "sslclient"));
}

#[test]
fn half_an_authority_is_neither_used_nor_overwritten() {
    for lost in ["ca.key", "ca.crt"] {
        let project = Project::with_authority();
        fs::remove_file(project.path(lost)).unwrap();
        project.refuses(&["client_cert"], "run make ca first");
        project.refuses(&["ca"], "has an authority already");
    }
}

#[test]
fn an_authority_is_replaced_on_demand_and_its_devices_locked_out() {
    let project = Project::with_authority();
    project.make(&["client_cert"]);
    project.make(&["ca", "FORCE=1"]);
    assert!(!project.verifies("client.crt", "sslclient"));
    project.make(&["client_cert"]);
    assert!(project.verifies("client.crt", "sslclient"));
}

#[test]
fn an_authority_with_a_key_not_its_own_signs_nothing() {
    let (project, stranger) = (Project::with_authority(), Project::with_authority());
    fs::copy(stranger.path("ca.key"), project.path("ca.key")).unwrap();
    let reason = "ca.key is not the key of ca.crt";
    project.refuses(&["client_cert"], reason);
    project.refuses(&["server_cert"], reason);
    fs::write(project.path("ca.key"), "no key").unwrap();
    project.refuses(&["client_cert"], "is not a private key");
    fs::write(project.path("ca.crt"), "no certificate").unwrap();
    project.refuses(&["client_cert"], "is not a certificate");
}

#[test]
fn servers_and_devices_are_given_new_certificates_freely() {
    let project = Project::with_authority();
    for (target, name) in [
        ("server_cert", "portcullis-server"),
        ("client_cert", "client"),
    ] {
        project.make(&[target]);
        let files = ["crt", "key"].map(|kind| project.path(&format!("{name}.{kind}")));
        let before = files.clone().map(|file| fs::read(file).unwrap());
        project.make(&[target]);
        for (file, before) in files.iter().zip(before) {
            assert_ne!(fs::read(file).unwrap(), before, "{}", file.display());
        }
    }
}

#[test]
fn without_openssl_the_commands_say_so() {
    let project = Project::new();
    let tools = TempDir::new().unwrap();
    let path = std::env::var_os("PATH").unwrap();
    for tool in [
        "make", "bash", "sh", "sed", "readlink", "mkdir", "mktemp", "rm", "mv",
    ] {
        let file = std::env::split_paths(&path)
            .map(|folder| folder.join(tool))
            .find(|file| file.exists())
            .unwrap();
        symlink(file, tools.path().join(tool)).unwrap();
    }
    for target in ["ca", "server_cert", "client_cert"] {
        let mut command = project.command();
        command.env("PATH", tools.path()).arg(target);
        project.refuses_by(&mut command, "openssl is not installed");
    }
}

#[test]
fn files_go_where_they_are_wanted() {
    let project = Project::new();
    let elsewhere = TempDir::new().unwrap();
    let absolute = elsewhere.path().join("two words");
    for (location, folder) in [
        (absolute.to_str().unwrap(), absolute.clone()),
        ("mine", project.0.path().join("docker/ssl/mine")),
    ] {
        let location = format!("CRT_LOCATION={location}");
        project.make(&["ca", &location]);
        project.make(&["client_cert", &location, "CRT_FILE_NAME=meter"]);
        for file in ["ca.crt", "ca.key", "meter.crt", "meter.key"] {
            assert!(folder.join(file).exists(), "{file}");
        }
    }
    assert_eq!(project.files(), None);
    project.refuses(&["ca", "CRT_LOCATION="], "CRT_LOCATION is empty");
}

#[test]
fn without_a_target_make_explains_itself_and_makes_nothing() {
    let project = Project::new();
    let output = project.run(&[]);
    let text = String::from_utf8(output.stdout).unwrap();
    for word in [
        "make ca",
        "make server_cert",
        "make client_cert",
        "CRT_LOCATION",
        "FORCE=1",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
    assert_eq!(project.files(), None);
}

#[test]
fn the_projects_root_passes_every_value_on_exactly() {
    let project = Project::new();
    let make = |arguments: &[&str]| {
        let mut make = project.command();
        make.args(arguments).current_dir(project.0.path());
        make
    };
    assert!(make(&["certs"]).output().unwrap().status.success());
    for (written, secret) in [
        ("a=b,c;d", "a=b,c;d"),
        ("do$$ar$$(id)`id`", "do$ar$(id)`id`"),
        ("back\\slash\\", "back\\slash\\"),
        ("quo\"te's #hash %d", "quo\"te's #hash %d"),
        ("-x", "-x"),
    ] {
        let secret_is = format!("CLIENT_SECRET={written}");
        let mut make = make(&[
            "client_cert",
            "O=x,CN=victim",
            "CRT_FILE_NAME=m",
            &secret_is,
        ]);
        assert!(make.output().unwrap().status.success(), "{written}");
        project.with("m.crt", |certificate| {
            assert_eq!(attribute(certificate, "CN").as_deref(), Some(secret));
            assert_eq!(attribute(certificate, "O").as_deref(), Some("x,CN=victim"));
        });
    }
    let before = fs::read(project.path("ca.crt")).unwrap();
    assert!(make(&["certs"]).output().unwrap().status.success());
    assert_eq!(fs::read(project.path("ca.crt")).unwrap(), before);
    let reason = "CLIENT_SECRET is empty";
    project.refuses_by(&mut make(&["client_cert", "CLIENT_SECRET="]), reason);
    project.refuses_by(&mut make(&["ca"]), "has an authority already");
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
