//! The front end of Mill: source text in, resolved syntax tree out.
//!
//! Mill knows one type, the 64-bit integer. Arithmetic wraps, comparisons give 0 or 1, division
//! by zero traps, and a function that runs off its end returns 0. The last function is `main`.
//! Names are resolved while parsing, so the tree holds indices only and every mistake is reported
//! with its line and column.

use std::fmt;

pub(crate) struct Program<'s> {
    /// In the order of the source; the last one is `main`.
    pub functions: Vec<Function<'s>>,
}

pub(crate) struct Function<'s> {
    pub name: &'s str,
    pub at: u32,
    pub parameters: usize,
    /// Number of local slots; the parameters are the first of them.
    pub locals: usize,
    pub body: Vec<Statement>,
}

/// `at` is, here and below, a byte offset in the source.
pub(crate) struct Statement {
    pub at: u32,
    pub kind: StatementKind,
}

pub(crate) enum StatementKind {
    Assign(usize, Expression),
    While(Expression, Vec<Statement>),
    If(Expression, Vec<Statement>, Vec<Statement>),
    Return(Expression),
}

pub(crate) struct Expression {
    pub at: u32,
    pub kind: ExpressionKind,
}

impl Expression {
    fn new(at: u32, kind: ExpressionKind) -> Self {
        Self { at, kind }
    }

    fn binary(at: u32, operator: Operator, left: Self, right: Self) -> Self {
        Self::new(at, ExpressionKind::Binary(operator, Box::new(left), Box::new(right)))
    }
}

pub(crate) enum ExpressionKind {
    Number(i64),
    Local(usize),
    Call(usize, Vec<Expression>),
    Binary(Operator, Box<Expression>, Box<Expression>),
}

#[derive(Clone, Copy, PartialEq)]
#[rustfmt::skip]
pub(crate) enum Operator {
    Or, And,
    Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual,
    BitOr, BitXor, BitAnd,
    ShiftLeft, ShiftRight, ShiftRightLogical,
    Add, Subtract, Multiply, Divide, Remainder,
}

/// Binary operators by rising precedence. Unlike in C, bit operators bind tighter than comparisons.
#[rustfmt::skip]
const PRECEDENCE: [&[(&str, Operator)]; 9] = [
    &[("||", Operator::Or)],
    &[("&&", Operator::And)],
    &[("==", Operator::Equal), ("!=", Operator::NotEqual),
      ("<", Operator::Less), ("<=", Operator::LessOrEqual),
      (">", Operator::Greater), (">=", Operator::GreaterOrEqual)],
    &[("|", Operator::BitOr)],
    &[("^", Operator::BitXor)],
    &[("&", Operator::BitAnd)],
    &[("<<", Operator::ShiftLeft), (">>", Operator::ShiftRight),
      (">>>", Operator::ShiftRightLogical)],
    &[("+", Operator::Add), ("-", Operator::Subtract)],
    &[("*", Operator::Multiply), ("/", Operator::Divide), ("%", Operator::Remainder)],
];

/// Each prefix operator is a binary one with a constant on its left.
const PREFIX: [(&str, Operator, i64); 3] =
    [("-", Operator::Subtract, 0), ("~", Operator::BitXor, -1), ("!", Operator::Equal, 0)];

/// Longer symbols come first, so that the first match is the longest.
const SYMBOLS: [&str; 28] = [
    ">>>", "||", "&&", "==", "!=", "<=", ">=", "<<", ">>", "<", ">", "|", "^", "&", "+", "-", "*", "/", "%", "=", "~",
    "(", ")", "{", "}", ",", ";", "!",
];

const KEYWORDS: [&str; 6] = ["fn", "let", "while", "if", "else", "return"];

#[derive(Debug)]
pub(crate) struct Error {
    pub line: usize,
    pub column: usize,
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for Error {}

type Result<T> = std::result::Result<T, Error>;

/// The line and column, both from 1, of a byte offset in the source.
pub(crate) fn locate(source: &str, at: usize) -> (usize, usize) {
    let before = &source[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

fn error<T>(source: &str, at: u32, message: impl Into<String>) -> Result<T> {
    let (line, column) = locate(source, at as usize);
    Err(Error { line, column, message: message.into() })
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Name,
    Keyword,
    Number,
    Symbol,
    End,
}

#[derive(Clone, Copy)]
struct Token<'s> {
    kind: Kind,
    text: &'s str,
    at: u32,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::End => f.write_str("the end of the file"),
            _ => write!(f, "`{}`", self.text),
        }
    }
}

fn lex(source: &str) -> Result<Vec<Token<'_>>> {
    if u32::try_from(source.len()).is_err() {
        return error(source, 0, "the source is longer than 4 GiB");
    }
    // Hence no offset is cut short below.
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut at = 0;
    loop {
        let rest = &source[at..];
        let word = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
        let (kind, text) = match rest.chars().next() {
            None => (Kind::End, ""),
            Some('#') => {
                at += rest.find('\n').unwrap_or(rest.len());
                continue;
            }
            Some(c) if c.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            Some('0'..='9') => (Kind::Number, word),
            Some(_) if KEYWORDS.contains(&word) => (Kind::Keyword, word),
            Some(c) if is_word(c) => (Kind::Name, word),
            Some(c) => match SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)) {
                Some(symbol) => (Kind::Symbol, symbol),
                None => return error(source, at as u32, format!("unexpected character `{c}`")),
            },
        };
        tokens.push(Token { kind, text, at: at as u32 });
        if kind == Kind::End {
            return Ok(tokens);
        }
        at += text.len();
    }
}

struct Signature<'s> {
    name: &'s str,
    parameters: usize,
}

/// Finds every function ahead of parsing, so that calls may precede definitions.
fn signatures<'s>(source: &str, tokens: &[Token<'s>]) -> Result<Vec<Signature<'s>>> {
    let mut found: Vec<Signature> = Vec::new();
    for (index, pair) in tokens.windows(2).enumerate() {
        let [keyword, name] = pair else { continue };
        if keyword.text != "fn" || name.kind != Kind::Name {
            continue;
        }
        if found.iter().any(|earlier| earlier.name == name.text) {
            return error(source, name.at, format!("a second function {name}"));
        }
        let list = tokens[index + 2..].iter();
        let list = list.take_while(|token| token.text != ")");
        found.push(Signature { name: name.text, parameters: list.filter(|token| token.kind == Kind::Name).count() });
    }
    Ok(found)
}

pub(crate) fn parse(source: &str) -> Result<Program<'_>> {
    let tokens = lex(source)?;
    let signatures = signatures(source, &tokens)?;
    let mut parser = Parser { source, tokens, signatures, next: 0, scope: Vec::new(), locals: 0 };
    let mut functions = Vec::new();
    while parser.peek().kind != Kind::End {
        functions.push(parser.function()?);
    }
    // Others may thus find `main` without the names.
    if functions.last().is_none_or(|last| last.name != "main" || last.parameters != 1) {
        let end = parser.peek().at;
        return parser.error(end, "a program ends with its `main(n)`");
    }
    Ok(Program { functions })
}

struct Parser<'s> {
    source: &'s str,
    tokens: Vec<Token<'s>>,
    signatures: Vec<Signature<'s>>,
    next: usize,
    /// The visible names with their slots, innermost last.
    scope: Vec<(&'s str, usize)>,
    /// Slots handed out in the current function.
    locals: usize,
}

impl<'s> Parser<'s> {
    fn error<T>(&self, at: u32, message: impl Into<String>) -> Result<T> {
        error(self.source, at, message)
    }

    fn peek(&self) -> Token<'s> {
        self.tokens[self.next]
    }

    /// Takes the next token; the end stays for the next caller to run into.
    fn advance(&mut self) -> Token<'s> {
        let token = self.peek();
        self.next += usize::from(token.kind != Kind::End);
        token
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.peek().text == text;
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, text: &str) -> Result<()> {
        if self.eat(text) {
            return Ok(());
        }
        let token = self.peek();
        self.error(token.at, format!("expected `{text}`, found {token}"))
    }

    fn name(&mut self) -> Result<Token<'s>> {
        let token = self.advance();
        match token.kind {
            Kind::Name => Ok(token),
            _ => self.error(token.at, format!("expected a name, found {token}")),
        }
    }

    fn declare(&mut self, name: &'s str) -> usize {
        let slot = self.locals;
        self.scope.push((name, slot));
        self.locals += 1;
        slot
    }

    fn resolve(&self, name: Token<'s>) -> Result<usize> {
        let mut innermost_first = self.scope.iter().rev();
        match innermost_first.find(|(visible, _)| *visible == name.text) {
            Some(&(_, slot)) => Ok(slot),
            None => self.error(name.at, format!("no variable {name} here")),
        }
    }

    /// Parses `(item, item, …)`.
    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut items = Vec::new();
        self.expect("(")?;
        while !self.eat(")") {
            if !items.is_empty() {
                self.expect(",")?;
            }
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn function(&mut self) -> Result<Function<'s>> {
        let at = self.peek().at;
        self.expect("fn")?;
        let name = self.name()?.text;
        self.scope.clear();
        self.locals = 0;
        let parameters = self.list(|parser| {
            let name = parser.name()?.text;
            Ok(parser.declare(name))
        })?;
        let body = self.block()?;
        Ok(Function { name, at, parameters: parameters.len(), locals: self.locals, body })
    }

    fn block(&mut self) -> Result<Vec<Statement>> {
        let outer = self.scope.len();
        let mut statements = Vec::new();
        self.expect("{")?;
        while !self.eat("}") {
            statements.push(self.statement()?);
        }
        self.scope.truncate(outer);
        Ok(statements)
    }

    fn statement(&mut self) -> Result<Statement> {
        let Token { text, at, .. } = self.peek();
        let kind = match text {
            "let" => {
                self.advance();
                let name = self.name()?.text;
                self.expect("=")?;
                // The name is not yet visible in its own value.
                let value = self.value()?;
                StatementKind::Assign(self.declare(name), value)
            }
            "while" => {
                self.advance();
                StatementKind::While(self.expression()?, self.block()?)
            }
            "if" => self.conditional()?,
            "return" => {
                self.advance();
                StatementKind::Return(self.value()?)
            }
            _ => {
                let name = self.name()?;
                self.expect("=")?;
                StatementKind::Assign(self.resolve(name)?, self.value()?)
            }
        };
        Ok(Statement { at, kind })
    }

    fn conditional(&mut self) -> Result<StatementKind> {
        self.expect("if")?;
        let condition = self.expression()?;
        let then = self.block()?;
        let otherwise = match self.eat("else") {
            true if self.peek().text == "if" => {
                vec![Statement { at: self.peek().at, kind: self.conditional()? }]
            }
            true => self.block()?,
            false => Vec::new(),
        };
        Ok(StatementKind::If(condition, then, otherwise))
    }

    /// Parses an expression that ends its statement.
    fn value(&mut self) -> Result<Expression> {
        let value = self.expression()?;
        self.expect(";")?;
        Ok(value)
    }

    fn expression(&mut self) -> Result<Expression> {
        self.binary(0)
    }

    fn binary(&mut self, level: usize) -> Result<Expression> {
        let Some(operators) = PRECEDENCE.get(level) else {
            return self.unary();
        };
        let mut left = self.binary(level + 1)?;
        loop {
            let Token { text, at, .. } = self.peek();
            let Some(&(_, operator)) = operators.iter().find(|(symbol, _)| *symbol == text) else {
                return Ok(left);
            };
            self.advance();
            let right = self.binary(level + 1)?;
            left = Expression::binary(at, operator, left, right);
        }
    }

    fn unary(&mut self) -> Result<Expression> {
        let token = self.advance();
        let at = token.at;
        let number = |value| Expression::new(at, ExpressionKind::Number(value));
        let prefix = PREFIX.iter().find(|(symbol, ..)| *symbol == token.text);
        if let Some(&(_, operator, left)) = prefix {
            let right = self.unary()?;
            return Ok(Expression::binary(at, operator, number(left), right));
        }
        match (token.kind, token.text) {
            (_, "(") => {
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            (Kind::Number, text) => match parse_number(text) {
                Some(value) => Ok(number(value)),
                None => self.error(at, format!("`{text}` is not a 64-bit number")),
            },
            (Kind::Name, _) if self.peek().text == "(" => self.call(token),
            (Kind::Name, _) => Ok(Expression::new(at, ExpressionKind::Local(self.resolve(token)?))),
            _ => self.error(at, format!("expected an expression, found {token}")),
        }
    }

    fn call(&mut self, name: Token<'s>) -> Result<Expression> {
        let mut known = self.signatures.iter();
        let Some(callee) = known.position(|known| known.name == name.text) else {
            return self.error(name.at, format!("no function {name}"));
        };
        let arguments = self.list(Self::expression)?;
        let (expected, found) = (self.signatures[callee].parameters, arguments.len());
        if found != expected {
            return self.error(name.at, format!("{name} takes {expected} arguments, not {found}"));
        }
        Ok(Expression::new(name.at, ExpressionKind::Call(callee, arguments)))
    }
}

/// Hexadecimal numbers name bit patterns and may therefore set the sign bit.
fn parse_number(text: &str) -> Option<i64> {
    let digits = text.replace('_', "");
    match digits.strip_prefix("0x") {
        Some(bits) => Some(u64::from_str_radix(bits, 16).ok()?.cast_signed()),
        None => digits.parse().ok(),
    }
}
