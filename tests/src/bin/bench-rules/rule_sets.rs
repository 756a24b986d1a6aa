//! The Core Rule Sets, as files for the gateway and for ModSecurity.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// What the requests need and the Core Rule Set forbids by default; the rest is as it comes: paranoia level 1.
const METHODS: &str = "SecAction \"id:100, phase:1, pass, nolog, t:none, \
    setvar:'tx.allowed_methods=GET HEAD POST OPTIONS PUT PATCH DELETE'\"\n";

/// What ModSecurity does not do by itself.
const MODSECURITY: &str = "SecRuleEngine On
SecRequestBodyAccess On
SecRequestBodyLimit 13107200
SecRequestBodyNoFilesLimit 2097152
SecRequestBodyLimitAction ProcessPartial
SecResponseBodyAccess On
SecResponseBodyMimeType text/plain text/html text/xml
SecResponseBodyLimit 524288
SecAuditEngine Off
SecUnicodeMapFile /etc/nginx/unicode.mapping 20127
SecRule REQUEST_HEADERS:Content-Type \"^application/json\" \
    \"id:101, phase:1, t:none, t:lowercase, pass, nolog, ctl:requestBodyProcessor=JSON\"
";

/// Where the rules are.
#[derive(Debug)]
pub(crate) struct RuleSets {
    /// For nginx.
    pub(crate) modsecurity: PathBuf,
    version_3: Vec<String>,
    /// For the gateway, if version 4 is there.
    pub(crate) version_4: Option<Vec<String>>,
}

impl RuleSets {
    /// Writes below `place` what includes the rules of `debian`, where the package is unpacked, and those of
    /// `checkout`, a checkout of version 4.
    ///
    /// # Errors
    /// The rules are not there.
    pub(crate) fn write(place: &Path, debian: &Path, checkout: Option<&Path>) -> Result<Self> {
        let methods = place.join("methods.conf");
        fs::write(&methods, METHODS)?;
        let files = |set_up: PathBuf, rules: PathBuf| -> Result<Vec<String>> {
            let set_up = set_up.canonicalize().with_context(|| set_up.display().to_string())?;
            let rules = rules.canonicalize().with_context(|| rules.display().to_string())?.join("*.conf");
            Ok([set_up, methods.clone(), rules].map(|path| path.display().to_string()).to_vec())
        };
        let version_3 = files(
            debian.join("etc/modsecurity/crs/crs-setup.conf"),
            debian.join("usr/share/modsecurity-crs/rules"),
        )?;
        let version_4 = checkout
            .map(|place| files(place.join("crs-setup.conf.example"), place.join("rules")))
            .transpose()?;
        let includes: String = version_3.iter().map(|path| format!("Include {path}\n")).collect();
        let modsecurity = place.join("modsecurity.conf");
        fs::write(&modsecurity, format!("{MODSECURITY}{includes}"))?;
        Ok(Self { modsecurity, version_3, version_4 })
    }

    /// The gateway's names for the sets: one line of its `waf` section.
    pub(crate) fn yaml(&self) -> String {
        let list = |files: &[String]| format!("[{}]", files.join(", "));
        let mut sets = format!("crs3: {}", list(&self.version_3));
        if let Some(files) = &self.version_4 {
            sets.push_str(&format!(", crs4: {}", list(files)));
        }
        format!("rule_sets: {{{sets}}}")
    }
}
