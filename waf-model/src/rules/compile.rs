//! Directives to drafts of rules; collects every mistake on the way.

use std::collections::BTreeSet;

use super::{
    Options, RuleError, RuleFile, RuleSource,
    action::{self, Actions, Disruption},
    control::{Choice, switch},
    draft::{Draft, Item, Step},
    lexer::{self, Directive},
    lower, operator,
    program::{Engine, Program, Settings},
    settle, variable,
};

/// Deepest `Include` within `Include`.
const DEEPEST: usize = 8;

/// Parses and compiles `sources` in order.
pub(super) fn compile(sources: &[RuleSource<'_>], options: &Options<'_>) -> Result<Program, Vec<RuleError>> {
    let mut compiler = Compiler {
        options,
        file: String::new(),
        files: Vec::new(),
        layered: false,
        errors: Vec::new(),
        warnings: Vec::new(),
        items: Vec::new(),
        ids: BTreeSet::new(),
        open: None,
        defaults: Default::default(),
        engine: None,
        settings: Settings::default(),
    };
    for source in sources {
        compiler.source(source.name, source.text, 0);
    }
    compiler.finish()
}

/// A chain whose last rule is still to come.
enum Open {
    /// The rule so far is the last item.
    Good,
    /// Its first rule had a mistake; the others are only checked.
    Broken,
}

struct Compiler<'a> {
    options: &'a Options<'a>,
    file: String,
    /// Every file so far, for the order of errors.
    files: Vec<String>,
    /// `SecInspectLayers` of this file.
    layered: bool,
    errors: Vec<RuleError>,
    warnings: Vec<RuleError>,
    items: Vec<Item>,
    ids: BTreeSet<u32>,
    open: Option<Open>,
    /// `SecDefaultAction` of each phase.
    defaults: [Actions; 5],
    engine: Option<Engine>,
    settings: Settings,
}

impl Compiler<'_> {
    fn fail(&mut self, line: usize, message: impl Into<String>) {
        self.errors.push(RuleError { file: self.file.clone(), line, message: message.into() });
    }

    fn warn(&mut self, line: usize, message: impl Into<String>) {
        self.warnings.push(RuleError { file: self.file.clone(), line, message: message.into() });
    }

    fn source(&mut self, name: &str, text: &str, depth: usize) {
        let outer = std::mem::replace(&mut self.file, name.to_owned());
        let layered = std::mem::take(&mut self.layered);
        self.files.push(name.to_owned());
        for directive in lexer::lex(text) {
            match directive {
                Ok(directive) => self.directive(&directive, depth),
                Err((line, message)) => self.fail(line, message),
            }
        }
        self.close_chain();
        self.file = outer;
        self.layered = layered;
    }

    fn close_chain(&mut self) {
        if let (Some(Open::Good), Some(Item::Rule(rule))) = (self.open.take(), self.items.last()) {
            let (line, id) = (rule.line, rule.id);
            self.fail(line, format!("rule {id} ends with `chain` but no rule follows; remove `chain`"));
        }
    }

    fn directive(&mut self, directive: &Directive, depth: usize) {
        let name = directive.name.to_ascii_lowercase();
        if self.open.is_some() && name != "secrule" {
            self.close_chain();
        }
        let arguments = directive.arguments.as_slice();
        let count = match name.as_str() {
            "secrule" => 2..=3,
            "secruleremovebyid" => 1..=usize::MAX,
            "secruleupdatetargetbyid"
            | "secruleupdatetargetbytag"
            | "secruleupdatetargetbymsg"
            | "secruleupdateactionbyid" => 2..=2,
            "secresponsebodymimetype" => 1..=usize::MAX,
            "secresponsebodymimetypesclear" => 0..=0,
            _ => 1..=1,
        };
        let known = matches!(
            name.as_str(),
            "secrule" | "secaction" | "secmarker" | "include" | "includeoptional" | "secdefaultaction"
        ) || SETTINGS.contains(&name.as_str())
            || name.starts_with("secruleremoveby")
            || name.starts_with("secruleupdate")
            || NO_EFFECT.contains(&name.as_str());
        if known && !NO_EFFECT.contains(&name.as_str()) && !count.contains(&arguments.len()) {
            let message = format!(
                "{} takes {} arguments, found {}; quote an argument that holds spaces",
                directive.name,
                if name == "secrule" { "2 or 3".to_owned() } else { count.start().to_string() },
                arguments.len()
            );
            return self.fail(directive.line, message);
        }
        let first = arguments.first().map_or("", String::as_str);
        let outcome = match name.as_str() {
            "secrule" | "secaction" => return self.rule(directive, name == "secaction"),
            "secmarker" => {
                self.items.push(Item::Marker(first.to_owned()));
                Ok(())
            }
            "include" | "includeoptional" => self.include(first, name == "includeoptional", depth),
            "secdefaultaction" => return self.default_action(directive.line, first),
            name if SETTINGS.contains(&name) => self.setting(name, arguments),
            name if name.starts_with("secrule") => self.edit(directive, name),
            name if NO_EFFECT.contains(&name) => {
                let message = format!("{} has no meaning here; remove it", directive.name);
                self.warn(directive.line, message);
                Ok(())
            }
            _ => Err(format!("directive `{}` is not supported; remove it", directive.name)),
        };
        if let Err(message) = outcome {
            self.fail(directive.line, message);
        }
    }

    fn include(&mut self, path: &str, optional: bool, depth: usize) -> Result<(), String> {
        if depth >= DEEPEST {
            return Err(format!(
                "Include {path} is nested {DEEPEST} deep; does a file include itself? remove it"
            ));
        }
        let files = match self.options.files.read(&self.file, path) {
            Err(_) if optional => return Ok(()),
            files => files.map_err(|error| format!("Include {path}: {error}"))?,
        };
        for RuleFile { name, bytes } in files {
            match std::str::from_utf8(&bytes) {
                Ok(text) => self.source(&name, text, depth + 1),
                Err(_) => return Err(format!("Include {path}: {name} is not UTF-8 text; convert it")),
            }
        }
        Ok(())
    }

    fn setting(&mut self, name: &str, arguments: &[String]) -> Result<(), String> {
        let first = arguments.first().map_or("", String::as_str);
        let size = || {
            let number = first.parse::<usize>();
            number.map_err(|_| format!("`{first}` is not a number; write a whole number"))
        };
        match name {
            "secruleengine" => self.engine = Some(Engine::parse(first)?),
            "secinspectlayers" => self.layered = switch(first)?,
            "secrequestbodyaccess" => self.settings.request_body = switch(first)?,
            "secresponsebodyaccess" => self.settings.response_body = switch(first)?,
            "secresponsebodylimit" => self.settings.response_limit = size()?,
            "secresponsebodymimetype" => {
                let types = arguments.iter().flat_map(|argument| argument.split_ascii_whitespace());
                self.settings.response_types = types.map(str::to_ascii_lowercase).collect();
            }
            "secresponsebodymimetypesclear" => self.settings.response_types.clear(),
            "seccollectiontimeout" => {
                self.settings.collection_timeout = u64::try_from(size()?).unwrap_or(u64::MAX);
            }
            // `SecComponentSignature` is a comment for people.
            _ => {}
        }
        Ok(())
    }

    /// `SecRuleRemoveBy…` and `SecRuleUpdate…`, which change the rules above.
    fn edit(&mut self, directive: &Directive, name: &str) -> Result<(), String> {
        let words = &directive.arguments;
        let first = words.first().map_or("", String::as_str);
        let choice = match name {
            "secruleremovebyid" => Choice::ids(&words.join(" "))?,
            "secruleupdatetargetbyid" | "secruleupdateactionbyid" => Choice::ids(first)?,
            "secruleremovebytag" | "secruleupdatetargetbytag" => Choice::tag(first)?,
            "secruleremovebymsg" | "secruleupdatetargetbymsg" => Choice::message(first)?,
            _ => return Err(format!("directive `{}` is not supported; remove it", directive.name)),
        };
        let second = words.get(1).map_or("", String::as_str);
        let mut found = 0;
        if name.starts_with("secruleremove") {
            let before = self.items.len();
            self.items.retain(|item| !matches!(item, Item::Rule(rule) if rule.is_chosen(&choice)));
            found = before - self.items.len();
        } else if name == "secruleupdateactionbyid" {
            let update = action::parse(second).map_err(|mistakes| mistakes.join("; "))?;
            if update.id.is_some() || update.phase.is_some() || update.chain {
                return Err(format!(
                    "{}: id, phase and chain cannot be changed; remove them",
                    directive.name
                ));
            }
            for rule in self.items.iter_mut().filter_map(|item| item.chosen(&choice)) {
                found += 1;
                if let Some(step) = rule.steps.first_mut() {
                    step.actions.update(update.clone());
                }
            }
        } else {
            let more = variable::parse(second)?;
            for rule in self.items.iter_mut().filter_map(|item| item.chosen(&choice)) {
                found += 1;
                if let Some(variables) = rule.steps.first_mut().and_then(|step| step.variables.as_mut()) {
                    variables.extend(more.iter().cloned());
                }
            }
        }
        if found == 0 {
            let text = words.join(" ");
            self.warn(
                directive.line,
                format!("{} {text}: matches no rule above; correct or remove it", directive.name),
            );
        }
        Ok(())
    }

    fn default_action(&mut self, line: usize, text: &str) {
        let actions = match action::parse(text) {
            Ok(actions) => actions,
            Err(mistakes) => return mistakes.into_iter().for_each(|mistake| self.fail(line, mistake)),
        };
        match (actions.phase, actions.id) {
            (None, _) => self.fail(line, "SecDefaultAction names no phase; add phase:1 or phase:2"),
            (_, Some(_)) => self.fail(line, "SecDefaultAction takes no id; remove it"),
            (Some(phase), None) => {
                if let Some(default) = self.defaults.get_mut(usize::from(phase) - 1) {
                    *default = actions;
                }
            }
        }
    }

    fn rule(&mut self, directive: &Directive, unconditional: bool) {
        let line = directive.line;
        let mut arguments = directive.arguments.iter();
        let mut mistakes = Vec::new();
        let mut step = Step::default();
        if !unconditional {
            let variables = variable::parse(arguments.next().map_or("", String::as_str));
            let read = |path: &str| self.options.files.read(&self.file, path);
            match operator::parse(arguments.next().map_or("", String::as_str), &read) {
                Ok(parsed) => step.parsed = Some(parsed),
                Err(mistake) => mistakes.push(mistake),
            }
            match variables {
                Ok(variables) => step.variables = Some(variables),
                Err(mistake) => mistakes.insert(0, mistake),
            }
        }
        if let Some(warning) = step.parsed.as_mut().and_then(|parsed| parsed.warning.take()) {
            self.warn(line, warning);
        }
        let text = arguments.next();
        let continued = self.open.take();
        match action::parse_argument(&directive.name, text) {
            Ok(actions) => step.actions = actions,
            // A chained rule needs no actions of its own.
            Err(_) if text.is_none() && continued.is_some() => {}
            Err(more) => {
                mistakes.extend(more);
                step.actions.chain =
                    text.is_some_and(|text| text.split(',').any(|word| word.trim() == "chain"));
            }
        }
        let chain = step.actions.chain;
        let good = mistakes.is_empty();
        mistakes.into_iter().for_each(|mistake| self.fail(line, mistake));
        let good = good
            && match continued {
                Some(open) => self.chained(line, step) && matches!(open, Open::Good),
                None => self.starter(directive, step),
            };
        if chain {
            self.open = Some(if good { Open::Good } else { Open::Broken });
        }
    }

    fn starter(&mut self, directive: &Directive, step: Step) -> bool {
        let line = directive.line;
        let Some(id) = step.actions.id else {
            self.fail(line, "the rule has no id; add id:N with a number of its own");
            return false;
        };
        if !self.ids.insert(id) {
            self.fail(line, format!("rule id {id} is used twice; give one of the rules another id"));
            return false;
        }
        let phase = usize::from(step.actions.phase.unwrap_or(2)) - 1;
        self.items.push(Item::Rule(Box::new(Draft {
            id,
            phase,
            file: self.file.clone(),
            line,
            comment: directive.comment.clone(),
            layered: self.layered,
            default: self.defaults.get(phase).cloned().unwrap_or_default(),
            steps: vec![step],
        })));
        true
    }

    /// Adds a rule to the chain that is open; whether it is without mistakes.
    fn chained(&mut self, line: usize, step: Step) -> bool {
        let actions = &step.actions;
        let disrupts = actions.disruption.as_ref().is_some_and(|own| *own != Disruption::Pass);
        let misplaced = [
            ("id", actions.id.is_some()),
            ("phase", actions.phase.is_some()),
            ("block, deny, drop, redirect or allow", disrupts),
            ("skip or skipAfter", actions.skip.is_some()),
        ];
        let mut good = true;
        for (name, _) in misplaced.into_iter().filter(|(_, present)| *present) {
            good = false;
            self.fail(
                line,
                format!("a chained rule cannot have {name}; move it to the first rule of the chain"),
            );
        }
        if let (true, Some(Item::Rule(rule))) = (good, self.items.last_mut()) {
            rule.steps.push(step);
        }
        good
    }

    fn finish(mut self) -> Result<Program, Vec<RuleError>> {
        let lowered = lower::lower(
            std::mem::take(&mut self.items),
            self.engine.unwrap_or(Engine::On),
            std::mem::take(&mut self.settings),
            self.options.variables,
        );
        match lowered {
            Ok(mut program) if self.errors.is_empty() => {
                settle::settle(&mut program);
                self.warnings.append(&mut program.warnings);
                program.warnings = self.warnings;
                Ok(program)
            }
            lowered => {
                self.errors.extend(lowered.err().into_iter().flatten());
                // Some mistakes only show at the end.
                let file = |error: &RuleError| self.files.iter().position(|file| *file == error.file);
                let mut errors = self.errors;
                errors.sort_by_key(|error| (file(error), error.line));
                Err(errors)
            }
        }
    }
}

/// Directives that set something.
const SETTINGS: [&str; 9] = [
    "secruleengine",
    "secinspectlayers",
    "secrequestbodyaccess",
    "secresponsebodyaccess",
    "secresponsebodylimit",
    "secresponsebodymimetype",
    "secresponsebodymimetypesclear",
    "seccollectiontimeout",
    "seccomponentsignature",
];

/// Directives about what the gateway does in its own way: logs, buffers, files, limits of other engines.
const NO_EFFECT: [&str; 36] = [
    "secargumentseparator",
    "secargumentslimit",
    "secauditengine",
    "secauditlog",
    "secauditlog2",
    "secauditlogdirmode",
    "secauditlogfilemode",
    "secauditlogformat",
    "secauditlogparts",
    "secauditlogrelevantstatus",
    "secauditlogstoragedir",
    "secauditlogtype",
    "secconnengine",
    "seccookieformat",
    "secdatadir",
    "secdebuglog",
    "secdebugloglevel",
    "secgeolookupdb",
    "sechttpblkey",
    "secpcrematchlimit",
    "secpcrematchlimitrecursion",
    "secrequestbodyinmemorylimit",
    "secrequestbodyjsondepthlimit",
    "secrequestbodylimit",
    "secrequestbodylimitaction",
    "secrequestbodynofileslimit",
    "secresponsebodylimitaction",
    "secserversignature",
    "secstatusengine",
    "sectmpdir",
    "sectmpsaveuploadedfiles",
    "secunicodemapfile",
    "secuploaddir",
    "secuploadfilelimit",
    "secuploadfilemode",
    "secuploadkeepfiles",
];
