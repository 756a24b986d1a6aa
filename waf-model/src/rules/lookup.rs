//! Values that are no texts of the exchange, and macros.

use super::{
    evaluate::{Matched, Run},
    program::Rule,
    report,
    template::{Macro, Template},
    variable::{Collection, Scalar, Source, Store, Variable},
};
use crate::{body::Processor, values::Departure};

impl Run<'_, '_, '_> {
    /// Names and values of a variable that is worked out on the spot.
    pub(super) fn values_of(&self, variable: &Variable) -> Vec<Matched> {
        match variable.collection {
            Collection::Texts(_) | Collection::Empty => Vec::new(),
            Collection::Scalar(scalar) => {
                let text = self.scalar(scalar);
                text.map(|text| Matched { name: variable.text.clone().into_bytes(), text })
                    .into_iter()
                    .collect()
            }
            Collection::Tx => {
                let names = &self.program.names;
                let all = self.state.tx.all(names).filter(|(name, _)| variable.selector.selects(name));
                all.map(|(name, value)| Matched {
                    name: [b"TX:", name].concat(),
                    text: value.bytes(names).into_owned(),
                })
                .collect()
            }
            Collection::Store(store) => {
                let all = self.stored(store).into_iter();
                let chosen = all.filter(|(name, _)| variable.selector.selects(name));
                let prefix = format!("{}:", store.name()).into_bytes();
                chosen
                    .map(|(name, text)| Matched { name: [prefix.as_slice(), &name].concat(), text })
                    .collect()
            }
            Collection::Matched { all, names } => {
                let from = if all { 0 } else { self.before.len().saturating_sub(1) };
                let matched = self.before.get(from..).unwrap_or_default().iter();
                let chosen = matched.filter(|matched| variable.selector.selects(&matched.name));
                chosen
                    .map(|matched| Matched {
                        name: matched.name.clone(),
                        text: if names { matched.name.clone() } else { matched.text.clone() },
                    })
                    .collect()
            }
        }
    }

    fn stored(&self, store: Store) -> Vec<(Vec<u8>, Vec<u8>)> {
        let key = self.state.keys.get(store as usize).and_then(Option::as_deref);
        key.map_or_else(Vec::new, |key| self.context.collections.read(store, key, self.context.now_ms))
    }

    fn scalar(&self, scalar: Scalar) -> Option<Vec<u8>> {
        let facts = &self.state.facts;
        let seconds = self.context.now_ms / 1000;
        let number = |number: u64| Some(number.to_string().into_bytes());
        let size = |size: usize| Some(size.to_string().into_bytes());
        let flag = |flag: bool| number(u64::from(flag));
        let (year, month, day) = date(seconds / 86_400);
        match scalar {
            Scalar::ArgsCombinedSize => size(self.sum(|source, name, text| match source {
                Source::Query | Source::Body => name.len() + text.len(),
                _ => 0,
            })),
            Scalar::FilesCombinedSize => size(self.sum(|source, _, text| match source {
                Source::FileSize => usize::try_from(super::tx::number(text)).unwrap_or(0),
                _ => 0,
            })),
            Scalar::BodyLength => size(facts.body_length),
            Scalar::FullRequestLength => size(facts.head_length + facts.body_length),
            Scalar::BodyProcessor => Some(match self.state.processor {
                Some(Processor::Form) => b"URLENCODED".to_vec(),
                Some(Processor::Multipart) => b"MULTIPART".to_vec(),
                Some(Processor::Json) => b"JSON".to_vec(),
                Some(Processor::Xml) => b"XML".to_vec(),
                None => Vec::new(),
            }),
            Scalar::BodyError => flag(facts.body_error),
            Scalar::BodyErrorText => Some(if facts.body_error {
                b"the body is not what its type says".to_vec()
            } else {
                Vec::new()
            }),
            Scalar::MultipartStrict => flag(facts.multipart_doubtful),
            Scalar::Departs(departure) => flag(facts.departures.contains(departure)),
            Scalar::MultipartMixedLines => flag(
                [Departure::CrlfLine, Departure::LfLine].iter().all(|way| facts.departures.contains(*way)),
            ),
            Scalar::InboundError => flag(facts.body_cut),
            Scalar::OutboundError => flag(facts.response_cut),
            Scalar::ResponseLength => size(facts.response_length),
            Scalar::HighestSeverity => number(u64::from(self.state.highest_severity)),
            Scalar::Duration => number(self.context.now_ms.saturating_sub(self.state.started_ms)),
            Scalar::Time => {
                let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
                Some(format!("{hour:02}:{minute:02}:{second:02}").into_bytes())
            }
            Scalar::TimeDay => number(day),
            Scalar::TimeEpoch => number(seconds),
            Scalar::TimeHour => number(seconds / 3600 % 24),
            Scalar::TimeMinute => number(seconds / 60 % 60),
            // As ModSecurity has it: January is 0.
            Scalar::TimeMonth => number(month - 1),
            Scalar::TimeSecond => number(seconds % 60),
            // The first day of 1970 was a Thursday.
            Scalar::TimeWeekday => number((seconds / 86_400 + 4) % 7),
            Scalar::TimeYear => number(year),
            Scalar::MatchedName => self.last_matched().map(|matched| matched.name.clone()),
            Scalar::Key(store) => self.state.keys.get(store as usize).cloned().flatten(),
            Scalar::Unknown => None,
        }
    }

    fn sum(&self, size: impl Fn(Source, &[u8], &[u8]) -> usize) -> usize {
        let subject = &self.forms.subject;
        let entries = subject.entries.iter();
        let text = |entry: usize| subject.texts.get(entry).map_or(&b""[..], |text| &text.bytes);
        entries.map(|entry| size(entry.source, &entry.name, text(entry.layers.start))).sum()
    }

    /// The text of a template for this rule.
    pub(super) fn expand(&self, template: &Template, rule: &Rule) -> Vec<u8> {
        template.expand(|name, out| self.macro_value(name, rule, out))
    }

    /// Appends what a macro stands for.
    pub(super) fn macro_value(&self, name: &Macro, rule: &Rule, out: &mut Vec<u8>) {
        match name {
            Macro::MatchedVar => {
                out.extend(self.last_matched().into_iter().flat_map(|matched| &matched.text))
            }
            Macro::MatchedVarName => {
                out.extend(self.last_matched().into_iter().flat_map(|matched| &matched.name));
            }
            Macro::RuleId => out.extend_from_slice(rule.id.to_string().as_bytes()),
            Macro::RuleMessage => out.extend_from_slice(rule.message.written().as_bytes()),
            Macro::RuleSeverity => {
                let number = rule.severity.map(report::severity_number);
                out.extend(number.into_iter().flat_map(|number| number.to_string().into_bytes()));
            }
            Macro::Tx(slot) => {
                let value = self.state.tx.get(*slot).map(|value| value.bytes(&self.program.names));
                out.extend_from_slice(value.as_deref().unwrap_or_default());
            }
            Macro::Variable(variable) => self.first_of(variable, out),
        }
    }

    pub(super) fn last_matched(&self) -> Option<&Matched> {
        self.matched.last().or(self.before.last())
    }

    fn first_of(&self, variable: &Variable, out: &mut Vec<u8>) {
        match variable.collection {
            Collection::Texts(_) => {
                let subject = &self.forms.subject;
                let entry = subject.entries.iter().find(|entry| variable.selects(entry.source, &entry.name));
                let text = entry.and_then(|entry| subject.texts.get(entry.layers.start));
                out.extend_from_slice(text.map_or(b"", |text| &text.bytes));
            }
            Collection::Matched { names, .. } => {
                let matched = self.last_matched().into_iter();
                out.extend(matched.flat_map(|matched| if names { &matched.name } else { &matched.text }));
            }
            _ => out
                .extend(self.values_of(variable).into_iter().next().into_iter().flat_map(|found| found.text)),
        }
    }
}

/// Year, month and day of a day counted from the first of 1970, in the proleptic Gregorian calendar: years are
/// counted from March, in eras of 400 years.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (days, expected) in
            [(0, (1970, 1, 1)), (59, (1970, 3, 1)), (11_016, (2000, 2, 29)), (20_781, (2026, 11, 24))]
        {
            assert_eq!(date(days), expected);
        }
    }
}
