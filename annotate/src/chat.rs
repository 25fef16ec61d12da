//! The OpenAI chat-completions protocol, as far as a question with pictures and a JSON schema needs it; vLLM, SGLang, llama.cpp
//! and clouds speak it (https://platform.openai.com/docs/api-reference/chat).

use crate::recipe::Chat;
use crate::template::Prompt;
use crate::views::Shown;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Where it is asked, below the base URL.
pub(crate) const PATH: &str = "chat/completions";

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) text: String,
    /// Whether it ended because `max_tokens` were written.
    pub(crate) cut: bool,
    pub(crate) tokens_in: u64,
    pub(crate) tokens_out: u64,
}

/// The request's body.
pub(crate) fn body(model: &str, chat: &Chat, prompt: &Prompt, shown: &[Shown]) -> Value {
    let mut content: Vec<Value> = shown.iter().map(|Shown(jpeg)| image_part(jpeg)).collect();
    content.push(json!({"type": "text", "text": prompt.user}));
    // Servers without eyes often take plain words alone.
    let user = if shown.is_empty() { json!(prompt.user) } else { Value::Array(content) };
    let system = prompt.system.iter().map(|words| json!({"role": "system", "content": words}));
    let messages: Vec<Value> = system.chain([json!({"role": "user", "content": user})]).collect();
    let mut body = json!({
        "model": model,
        "messages": messages,
        "max_tokens": chat.max_tokens,
        "temperature": chat.temperature,
        "seed": 0,
        "stream": false,
    });
    if let Some(schema) = chat.shape.schema() {
        let named = json!({"name": "answer", "strict": true, "schema": schema});
        body["response_format"] = json!({"type": "json_schema", "json_schema": named});
    }
    body
}

/// The same request after an answer that was refused: the model sees its own words and what is wrong with them.
pub(crate) fn again(mut body: Value, answer: &str, problem: &str) -> Value {
    let words = format!("That answer cannot be used: {problem}. Give the whole answer once more, and nothing else.");
    if let Some(messages) = body["messages"].as_array_mut() {
        messages.push(json!({"role": "assistant", "content": answer}));
        messages.push(json!({"role": "user", "content": words}));
    }
    body
}

/// A JPEG as a part of a message.
pub(crate) fn image_part(jpeg: &[u8]) -> Value {
    json!({"type": "image_url", "image_url": {"url": data_url(jpeg)}})
}

/// A JPEG as a `data:` URL.
pub(crate) fn data_url(jpeg: &[u8]) -> String {
    format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg))
}

/// Reads a completion; in words what is missing.
pub(crate) fn read(answer: &Value) -> Result<Reply, String> {
    let choice = &answer["choices"][0];
    let text = choice["message"]["content"].as_str().ok_or("a completion without choices[0].message.content")?;
    let tokens = |kind: &str| answer["usage"][kind].as_u64().unwrap_or(0);
    Ok(Reply {
        text: text.to_owned(),
        cut: choice["finish_reason"] == "length",
        tokens_in: tokens("prompt_tokens"),
        tokens_out: tokens("completion_tokens"),
    })
}
