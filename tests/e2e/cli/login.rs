//! Clusters that do not let everybody in.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Child;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::support::{Outcome, command, outcome};

/// `abs devserver` in a process of its own.
struct Devserver {
    child: Child,
    address: String,
}

impl Devserver {
    fn start(options: &[&str]) -> Self {
        let fixed = ["devserver", "--listen", "127.0.0.1:0", "--namespace", "n"];
        let mut child = command(&[&fixed[..], options].concat()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("node 0 listens on ").unwrap().to_owned();
        Self { child, address }
    }

    /// A backup of its namespace to a new folder.
    fn backup(&self, options: &[&str]) -> Outcome {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().to_str().unwrap();
        let fixed = ["backup", "-h", &self.address, "-n", "n", "-d", folder];
        let mut command = command(&[&fixed[..], options].concat());
        let outcome = outcome(command.env("PASSWORD", "hunter2").spawn().unwrap());
        assert!(!format!("{outcome:?}").contains("hunter2"));
        outcome
    }
}

impl Drop for Devserver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Protects: a password comes from a file, the environment or the command line, is refused when it is wrong, and is
/// never shown.
#[test]
fn a_password() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "hunter2\n").unwrap();
    let file = file.to_str().unwrap();
    let server = Devserver::start(&["--user", "backup:hunter2"]);
    for options in [
        &["-U", "backup", "-P", "hunter2"][..],
        &["--user", "backup", "--password-file", file, "--auth", "INTERNAL"],
        &["--user", "backup", "--password-env", "PASSWORD"],
    ] {
        server.backup(options).ok();
    }
    server.backup(&["-U", "backup", "-P", "wrong"]).fails(1, &["cannot log in", "bad credential"]);
    server.backup(&[]).fails(1, &["log in"]);
    for (options, part) in [
        (&["-U", "backup"][..], "--user needs --password-file"),
        (&["-P", "x"], "--user"),
        (&["-A", "external"], "--auth needs --user"),
        (&["-U", "backup", "--password-env", "NO_SUCH"], "NO_SUCH is not set"),
        (&["-U", "backup", "--password-file", "/no/such"], "cannot read the password in /no/such"),
        (&["--tls-name", "x"], "--tls-enable"),
    ] {
        server.backup(options).fails(2, &[part]);
    }
}

/// An authority with a certificate for `localhost` and one for the user `backup`, in files of a folder.
struct Certificates(TempDir);

impl Certificates {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        for (name, hosts) in [("server", vec!["localhost".to_owned()]), ("backup", vec![])] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(hosts).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            let certificate = params.signed_by(&key, &authority).unwrap();
            fs::write(folder.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
            fs::write(folder.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        let path: PathBuf = Path::join(self.0.path(), name);
        path.to_str().unwrap().to_owned()
    }
}

/// Protects: TLS, a certificate as the user, and that neither works without what it needs.
#[test]
fn certificates() {
    let certificates = Certificates::new();
    let [ca, server_pem, server_key, pem, key] =
        ["ca.pem", "server.pem", "server.key", "backup.pem", "backup.key"]
            .map(|name| certificates.path(name));
    let listens = ["--tls-name", "localhost", "--tls-certfile", &server_pem, "--tls-keyfile", &server_key];
    let server = Devserver::start(&listens);
    let trusts = ["--tls-enable", "--tls-cafile", &ca, "--tls-name", "localhost"];
    server.backup(&trusts).ok();
    server.backup(&[&trusts[..], &["--tls-protocols", "TLSv1.2"]].concat()).ok();
    server.backup(&["--tls-enable", "--tls-cafile", &ca, "--tls-name", "other"]).fails(1, &["other"]);
    server.backup(&["--connect-timeout", "300"]).fails(1, &["abs: "]);

    let only_known = ["--tls-client-cafile", &ca, "--certified-user", "backup"];
    let server = Devserver::start(&[&listens[..], &only_known].concat());
    let ours = ["--auth", "pki", "--tls-certfile", &pem, "--tls-keyfile", &key];
    server.backup(&[&trusts[..], &ours].concat()).ok();
    server.backup(&trusts).fails(1, &["abs: "]);
    server.backup(&[&trusts[..], &["--auth", "pki"]].concat()).fails(1, &["certificate"]);
}

/// Protects: racks are chosen by number, and only by one that there is.
#[test]
fn racks() {
    let server = Devserver::start(&["--nodes", "2", "--racks", "1,2"]);
    server.backup(&["--rack-list", "1"]).ok();
    server.backup(&["--prefer-racks", "2,1"]).ok();
    server.backup(&["--rack-list", "7"]).fails(1, &["7"]);
    server.backup(&["--rack-list", "1", "--prefer-racks", "1"]).fails(2, &["cannot be used with"]);
}
