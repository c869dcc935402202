def polite(response, gold, row):
    return "please" in response.lower() or "gladly" in response.lower()
